"""Reading rules that people write: every fault at once, each with its JSON pointer, and the flag that they make."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from rescind import wire
from rescind.evaluation import check

from flagd.core import documents
from flagd.core.ruleform import (
    DEPTH_MAX,
    NAME_LENGTH_MAX,
    OPERATORS,
    PRESENCE,
    RULES_MAX,
    VERSIONS,
    Pointers,
    is_name,
    is_weight,
    written,
)

_KINDS: Final = ("attribute", "segment", "any", "all")
_PROBE: Final = {"state": "ENABLED", "variants": {"on": True}}


def read_flag(document: object, at: str, check_definition: documents.Check) -> tuple[wire.Flag | None, list[wire.Fault]]:
    """A flag as it was written at `at`, its targeting given raw or as `rules`; None with everything that is wrong with it.

    Whatever is wrong with the targeting of rules is said of the rules.
    """
    if not isinstance(document, dict) or "rules" not in document:
        return documents.read_flag(document, at, check_definition)
    rules, bare = document["rules"], {name: value for name, value in document.items() if name != "rules"}
    if rules is None:
        return documents.read_flag(bare, at, check_definition)
    faults = faults_of(rules, f"{at}/rules")
    definition = bare.get("definition")
    if isinstance(definition, dict) and "targeting" in definition:
        detail = "a flag has `rules` or `definition.targeting`, not both: leave one of them out"
        faults.append(wire.Fault(pointer=f"{at}/rules", code="both", detail=detail))
        definition = bare["definition"] = {name: value for name, value in definition.items() if name != "targeting"}
    places: Pointers = {}
    if not faults and isinstance(definition, dict):
        targeting, places = written(rules)
        bare["definition"] = {**definition, "targeting": targeting} if targeting else definition
    flag, wrong = documents.read_flag(bare, at, check_definition)
    faults.extend(_moved(fault, f"{at}/definition/targeting", f"{at}/rules", places) for fault in wrong)
    return (None if faults else flag), faults


def faults_of(rules: object, at: str = "") -> list[wire.Fault]:
    """Everything that is wrong with a list of rules, but for names that only a definition and its environment know."""
    if not isinstance(rules, list):
        return [_fault(at, "wrong_type", "rules are a list, the first that holds decides")]
    if len(rules) > RULES_MAX:
        return [_fault(at, "too_many", f"at most {RULES_MAX} rules, these are {len(rules)}")]
    faults: list[wire.Fault] = []
    for index, rule in enumerate(rules):
        _rule(rule, f"{at}/{index}", is_last=index == len(rules) - 1, faults=faults)
    return faults


def _fault(at: str, code: str, detail: str) -> wire.Fault:
    return wire.Fault(pointer=at, code=code, detail=detail)


def _moved(fault: wire.Fault, source: str, target: str, places: Pointers) -> wire.Fault:
    """A fault of the targeting as a fault of the rules that it was written from: at the nearest part that is known."""
    if not fault.pointer.startswith(source):
        return fault
    below = fault.pointer.removeprefix(source)
    while below and below not in places:
        below = below.rpartition("/")[0]
    return msgspec.structs.replace(fault, pointer=target + places.get(below, ""))


def _rule(rule: object, at: str, *, is_last: bool, faults: list[wire.Fault]) -> None:
    if not isinstance(rule, dict):
        faults.append(_fault(at, "wrong_type", "a rule is an object: `when`, `serve`, and a `name` if you like"))
        return
    faults.extend(documents.unknown_fields(rule, dict.fromkeys(("name", "when", "serve")), at))
    if "name" in rule and not is_name(rule["name"]):
        detail = f"a name is one line of at most {NAME_LENGTH_MAX} characters without space at its ends"
        faults.append(_fault(f"{at}/name", "wrong_type", detail))
    when = rule.get("when", [])
    if not isinstance(when, list):
        faults.append(_fault(f"{at}/when", "wrong_type", "`when` is a list of conditions that must all hold"))
    else:
        if not when and not is_last:
            detail = "a rule without conditions takes everyone, so those after it are never reached: it stands last"
            faults.append(_fault(at, "unreachable", detail))
        for index, condition in enumerate(when):
            _condition(condition, f"{at}/when/{index}", 0, faults)
    if "serve" not in rule:
        faults.append(_fault(f"{at}/serve", "missing", "`serve` names a variant, null (the default variant) or a split"))
    else:
        _serve(rule["serve"], f"{at}/serve", faults)


def _condition(item: object, at: str, depth: int, faults: list[wire.Fault]) -> None:
    kinds = [kind for kind in _KINDS if isinstance(item, dict) and kind in item]
    if not isinstance(item, dict) or len(kinds) != 1:
        detail = "a condition has `attribute`, `operator`, `value`; or `segment`; or `any` or `all` with a list of conditions"
        faults.append(_fault(at, "wrong_type", detail))
        return
    kind = kinds[0]
    known = ("attribute", "operator", "value", "not") if kind == "attribute" else (kind, "not")
    faults.extend(documents.unknown_fields(item, dict.fromkeys(known), at))
    negated = item.get("not", False)
    if negated is not True and "not" in item:
        faults.append(_fault(f"{at}/not", "wrong_type", "`not` is true, or left out"))
    if kind == "attribute":
        _comparison(item, at, faults)
    elif kind == "segment":
        _text(item["segment"], f"{at}/segment", "`segment` is the name of a segment", faults)
    else:
        _group(item[kind], kind, at, depth, negated=negated is True, faults=faults)


def _group(items: object, kind: str, at: str, depth: int, *, negated: bool, faults: list[wire.Fault]) -> None:
    if not isinstance(items, list) or not items:
        faults.append(_fault(f"{at}/{kind}", "wrong_type", f"`{kind}` is a list of at least one condition"))
        return
    if depth == 0 and kind == "all" and not negated:
        faults.append(_fault(at, "misplaced", "all conditions of `when` must hold: write these into `when` itself"))
    if depth == DEPTH_MAX:
        faults.append(_fault(at, "too_deep", f"conditions are nested at most {DEPTH_MAX} deep; make a segment of these"))
        return
    for index, item in enumerate(items):
        _condition(item, f"{at}/{kind}/{index}", depth + 1, faults)


def _text(value: object, at: str, detail: str, faults: list[wire.Fault]) -> bool:
    if isinstance(value, str) and value:
        return True
    faults.append(_fault(at, "wrong_type", detail))
    return False


def _comparison(item: Mapping[str, Any], at: str, faults: list[wire.Fault]) -> None:
    _text(item["attribute"], f"{at}/attribute", "`attribute` is a name in the context, or a path `user.plan`", faults)
    operator = item.get("operator")
    if not isinstance(operator, str) or operator not in OPERATORS:
        near = difflib.get_close_matches(str(operator)[:40].replace("_", " "), OPERATORS, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else f"; there are {', '.join(OPERATORS)}"
        faults.append(_fault(f"{at}/operator", "unknown_operator", f"no operator {operator!r:.80}{hint}"))
        return
    if operator == "in" and item.get("not") is True:
        faults.append(_fault(f"{at}/not", "misplaced", "use the operator `not in`"))
    if operator == "not in" and "not" in item:
        faults.append(_fault(f"{at}/not", "misplaced", "use the operator `in`"))
    detail = _value_fault(operator, item)
    if detail:
        faults.append(_fault(f"{at}/value", "wrong_type", detail))


def _value_fault(operator: str, item: Mapping[str, Any]) -> str | None:
    """What is wrong with the value, in words."""
    value = item.get("value")
    if operator in PRESENCE:
        return f"`{operator}` takes no value" if "value" in item else None
    if operator in ("in", "not in"):
        is_list = isinstance(value, list) and value and all(isinstance(one, str | int | float) for one in value)
        return None if is_list else f"`{operator}` takes a list of texts, numbers or booleans"
    if operator in ("starts with", "ends with"):
        return None if isinstance(value, str) and value else f"`{operator}` takes a text"
    if operator in VERSIONS:
        rule = {"if": [{"sem_ver": [{"var": "version"}, "=", value]}, "on"]}
        is_version = isinstance(value, str) and not check({**_PROBE, "targeting": rule})
        return None if is_version else f"`{operator}` takes a semantic version, such as 2.0.0"
    is_scalar = isinstance(value, str | int | float)
    return None if is_scalar else f"`{operator}` takes a text, a number or a boolean (for null: `exists`, `is missing`)"


def _serve(serve: object, at: str, faults: list[wire.Fault]) -> None:
    if serve is None or isinstance(serve, bool) or (isinstance(serve, str) and serve):
        return
    if not isinstance(serve, dict) or "split" not in serve:
        detail = '`serve` is a variant, null (the default variant), or {"split": {variant: weight, ...}, "by": attribute}'
        faults.append(_fault(at, "wrong_type", detail))
        return
    faults.extend(documents.unknown_fields(serve, dict.fromkeys(("split", "by")), at))
    _split(serve["split"], f"{at}/split", faults)
    by = serve.get("by", "targetingKey")
    names = by if isinstance(by, list) and len(by) > 1 else [by]
    if not all(isinstance(name, str) and name for name in names):
        detail = "`by` is the attribute that decides who is in which share (the targeting key if left out), or a list of some"
        faults.append(_fault(f"{at}/by", "wrong_type", detail))


def _split(split: object, at: str, faults: list[wire.Fault]) -> None:
    if isinstance(split, list):
        if not split or not all(isinstance(name, str) and name for name in split) or len(set(split)) < len(split):
            faults.append(_fault(at, "wrong_type", "equal shares are a list of different variants"))
        return
    if not isinstance(split, dict) or not split:
        faults.append(_fault(at, "wrong_type", "a split gives each variant its weight; the order of the variants counts"))
        return
    for name, weight in split.items():
        if not is_weight(weight):
            faults.append(_fault(at + documents.pointer(name), "wrong_type", "a weight is a whole number, 0 or more"))
