"""The rules form: targeting as a list of rules that people read and write. A view of targeting, never stored.

    [{"name": "beta countries",
      "when": [{"attribute": "country", "operator": "in", "value": ["DE", "AT"]}, {"segment": "beta"}],
      "serve": "on"},
     {"serve": {"split": {"on": 25, "off": 75}, "by": "account"}}]

The first rule whose conditions all hold decides; one without `when` takes everyone who is left, and where there is none the
default variant is served. `targeting_of` writes plain flagd targeting: an `if` chain whose last value is the rule without
conditions. `rules_of` reads it back where nothing is lost and nothing added, and says None everywhere else. A rule's name
stands in the targeting as a constant that is always true, first among its conditions (docs/decisions/0008).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

Rules = list[dict[str, Any]]
Pointers = dict[str, str]
"""Where each part of the targeting was written: JSON pointer into the targeting to JSON pointer into the rules."""

BINARY: Final = {
    "equals": "==", "not equals": "!=", "exactly equals": "===", "not exactly equals": "!==",
    "<": "<", "<=": "<=", ">": ">", ">=": ">=", "starts with": "starts_with", "ends with": "ends_with",
}  # fmt: skip
"""Operators whose targeting is `{<operator>: [{"var": attribute}, value]}`."""
VERSIONS: Final = tuple(f"sem_ver {sign}" for sign in ("=", "!=", ">", ">=", "<", "<=", "~", "^"))
PRESENCE: Final = {"exists": "!==", "is missing": "==="}
OPERATORS: Final = (*BINARY, "in", "not in", "contains", *VERSIONS, *PRESENCE)
DEPTH_MAX: Final = 8
"""Alternatives within alternatives."""
RULES_MAX: Final = 1000
NAME_LENGTH_MAX: Final = 128

_NAMED: Final = {form: name for name, form in BINARY.items()}


def targeting_of(rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """flagd targeting that decides as the rules do; {} for none. `ruleread.faults_of` must have found nothing wrong.

    >>> targeting_of([{"when": [{"attribute": "plan", "operator": "equals", "value": "free"}], "serve": "off"}])
    {'if': [{'==': [{'var': 'plan'}, 'free']}, 'off']}
    """
    return written(rules)[0]


def written(rules: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], Pointers]:
    """The targeting of the rules, and where each part of it was written."""
    if not rules:
        return {}, {}
    only = rules[0]
    if len(rules) == 1 and not only.get("when") and "name" not in only and isinstance(only["serve"], Mapping):
        return _serve(only["serve"]), {"": "/0/serve"}
    chain: list[Any] = []
    places: Pointers = {}
    for index, rule in enumerate(rules):
        if rule.get("when") or "name" in rule:
            places[f"/if/{len(chain)}"] = f"/{index}/when"
            _place_conditions(rule, f"/if/{len(chain)}", f"/{index}", places)
            chain.append(_test(rule))
        places[f"/if/{len(chain)}"] = f"/{index}/serve"
        chain.append(_serve(rule["serve"]))
    return {"if": chain}, places


def rules_of(targeting: object) -> Rules | None:
    """The rules of a targeting, [] for none; None where the form cannot say exactly the same.

    >>> rules_of({"fractional": [["on", 5], ["off", 95]]})
    [{'serve': {'split': {'on': 5, 'off': 95}}}]
    >>> rules_of({"if": [{"missing": ["plan"]}, "off"]}) is None
    True
    """
    if targeting is None or targeting == {}:
        return []
    try:
        rules = _read(targeting)
        return rules if _exactly(targeting_of(rules), targeting) else None
    except _Beyond:
        return None


def is_name(value: object) -> bool:
    """Whether this can be the name of a rule: one line without space at its ends."""
    return isinstance(value, str) and 0 < len(value) <= NAME_LENGTH_MAX and value.isprintable() and value.strip() == value


class _Beyond(Exception):  # noqa: N818 - it is no error, but the end of the form
    """The targeting says something for which the form has no words."""


# --- writing -----------------------------------------------------------------------------------------------------------


def _test(rule: Mapping[str, Any]) -> Any:
    conditions = [_condition(item) for item in rule.get("when", ())]
    if "name" in rule:
        return {"and": [rule["name"], *conditions]} if conditions else rule["name"]
    return conditions[0] if len(conditions) == 1 else {"and": conditions}


def _place_conditions(rule: Mapping[str, Any], at: str, to: str, places: Pointers) -> None:
    count, first = len(rule.get("when", ())), int("name" in rule)
    if count == 1 and not first:
        places[at] = f"{to}/when/0"
        return
    for index in range(count):
        places[f"{at}/and/{index + first}"] = f"{to}/when/{index}"
    if first:
        places[f"{at}/and/0"] = f"{to}/name"


def _condition(item: Mapping[str, Any]) -> dict[str, Any]:
    if "segment" in item:
        test: dict[str, Any] = {"$ref": item["segment"]}
    elif "any" in item:
        test = {"or": [_condition(one) for one in item["any"]]}
    elif "all" in item:
        test = {"and": [_condition(one) for one in item["all"]]}
    else:
        test = _comparison({"var": item["attribute"]}, item["operator"], item.get("value"))
    return {"!": [test]} if item.get("not") else test


def _comparison(variable: dict[str, Any], operator: str, value: Any) -> dict[str, Any]:
    if operator in BINARY:
        return {BINARY[operator]: [variable, value]}
    if operator in PRESENCE:
        return {PRESENCE[operator]: [variable, None]}
    if operator in VERSIONS:
        return {"sem_ver": [variable, operator.removeprefix("sem_ver "), value]}
    if operator == "contains":
        return {"in": [value, variable]}
    within = {"in": [variable, value]}
    return within if operator == "in" else {"!": [within]}


def _serve(serve: Any) -> Any:
    if not isinstance(serve, Mapping):
        return serve
    split = serve["split"]
    shares = [[name, weight] for name, weight in split.items()] if isinstance(split, Mapping) else [[name] for name in split]
    return {"fractional": [*_by(serve.get("by")), *shares]}


def _by(by: Any) -> list[dict[str, Any]]:
    if by is None:
        return []
    return [{"var": by}] if isinstance(by, str) else [{"cat": [{"var": name} for name in by]}]


# --- reading -----------------------------------------------------------------------------------------------------------


def _read(targeting: object) -> Rules:
    operator, arguments = _operation(targeting)
    if operator == "fractional":
        return [{"serve": _read_serve(targeting)}]
    if operator != "if" or not isinstance(arguments, list) or len(arguments) > 2 * RULES_MAX:
        raise _Beyond
    pairs = zip(arguments[::2], arguments[1::2], strict=False)
    rules: Rules = [{**_read_test(test), "serve": _read_serve(serve)} for test, serve in pairs]
    if len(arguments) % 2:
        rules.append({"serve": _read_serve(arguments[-1])})
    if any("when" not in rule for rule in rules[:-1]):
        raise _Beyond  # what stands after it is never reached
    return rules


def _operation(rule: object) -> tuple[str, Any]:
    if not isinstance(rule, dict) or len(rule) != 1:
        raise _Beyond
    ((operator, arguments),) = rule.items()
    return operator, arguments


def _read_test(test: object) -> dict[str, Any]:
    if is_name(test):
        return {"name": test}
    operator, arguments = _operation(test)
    if operator != "and" or not isinstance(arguments, list) or not arguments:
        return {"when": [_read_condition(test, 0)]}
    named = is_name(arguments[0])
    conditions = [_read_condition(item, 0) for item in arguments[int(named) :]]
    return {"name": arguments[0], "when": conditions} if named else {"when": conditions}


def _read_condition(rule: object, depth: int, *, negated: bool = False) -> dict[str, Any]:
    operator, arguments = _operation(rule)
    if operator == "$ref":
        return {"segment": _text(arguments)}
    if not isinstance(arguments, list) or not arguments:
        raise _Beyond
    if operator == "!" and not negated:
        return _negated(_read_condition(arguments[0], depth, negated=True))
    if operator in ("or", "and"):
        if depth == DEPTH_MAX or (operator == "and" and depth == 0 and not negated):
            raise _Beyond  # such conditions stand in `when` itself
        return {"any" if operator == "or" else "all": [_read_condition(item, depth + 1) for item in arguments]}
    return _read_comparison(operator, arguments)


def _negated(condition: dict[str, Any]) -> dict[str, Any]:
    return {**condition, "operator": "not in"} if condition.get("operator") == "in" else {**condition, "not": True}


def _text(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise _Beyond


def _read_comparison(operator: str, arguments: list[Any]) -> dict[str, Any]:
    match operator, arguments:
        case "in", [str() | int() | float() as value, {"var": str(name)}]:
            return {"attribute": _text(name), "operator": "contains", "value": value}
        case "in", [{"var": str(name)}, list(values)] if values and all(isinstance(one, str | int | float) for one in values):
            return {"attribute": _text(name), "operator": "in", "value": values}
        case "sem_ver", [{"var": str(name)}, str(sign), str(value)] if f"sem_ver {sign}" in VERSIONS:
            return {"attribute": _text(name), "operator": f"sem_ver {sign}", "value": value}
        case "===" | "!==", [{"var": str(name)}, None]:
            return {"attribute": _text(name), "operator": "is missing" if operator == "===" else "exists"}
        case "starts_with" | "ends_with", [{"var": str(name)}, value]:
            return {"attribute": _text(name), "operator": _NAMED[operator], "value": _text(value)}
        case _, [{"var": str(name)}, str() | int() | float() as value] if operator in _NAMED:
            return {"attribute": _text(name), "operator": _NAMED[operator], "value": value}
    raise _Beyond


def _read_serve(serve: object) -> Any:
    if serve is None or isinstance(serve, bool) or (isinstance(serve, str) and serve):
        return serve
    operator, arguments = _operation(serve)
    if operator != "fractional" or not isinstance(arguments, list) or not arguments:
        raise _Beyond
    by = {} if isinstance(arguments[0], list) else {"by": _read_by(arguments[0])}
    shares = arguments[len(by) :]
    if not shares or not all(isinstance(share, list) and share for share in shares):
        raise _Beyond
    names = [_text(share[0]) for share in shares]
    if len(set(names)) < len(names):
        raise _Beyond
    if all(len(share) == 1 for share in shares):
        return {"split": names, **by}
    if not all(len(share) == 2 and is_weight(share[1]) for share in shares):
        raise _Beyond
    return {"split": dict(shares), **by}


def is_weight(value: object) -> bool:
    """Whether this can be the weight of a variant in a split."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read_by(rule: object) -> str | list[str]:
    match rule:
        case {"var": str(name)}:
            return _text(name)
        case {"cat": list(parts)} if len(parts) > 1:
            return [_text(part.get("var") if isinstance(part, dict) else None) for part in parts]
    raise _Beyond


def _exactly(one: object, other: object) -> bool:
    """Equal as JSON text, the order of a split's names included: unlike Python, `true` is not 1 and 1 is not 1.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(_exactly(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_exactly(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and one == other
