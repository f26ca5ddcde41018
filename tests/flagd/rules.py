"""Rules for property tests: any that people may write, contexts for them, and what they mean, said once more in plain words."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import cbor2
import mmh3
import semver
from hypothesis import strategies as st

from flagd.core.ruleform import VERSIONS

KEY = "checkout.new-flow"
VARIANTS = {"on": 1, "off": 2, "third": 3}
SEGMENTS: dict[str, Any] = {
    "beta": {"in": [{"var": "country"}, ["DE", "FR"]]},
    "free": {"==": [{"var": "plan"}, "free"]},
}
ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip
TEXTS = ["DE", "FR", "AT", "free", "pro", "éé"]
NAMES = st.text(alphabet="abc é!0", min_size=1, max_size=8).filter(lambda name: name.strip() == name)
TYPES: dict[str, st.SearchStrategy[Any]] = {
    "country": st.sampled_from(TEXTS),
    "plan": st.sampled_from(TEXTS),
    "age": st.integers(1, 9),
    "staff": st.booleans(),
    "version": st.sampled_from(["1.0.0", "1.2.3", "2.0.0-rc.1", "2.0.0"]),
    "user.city": st.sampled_from(TEXTS),
}

contexts = st.fixed_dictionaries(
    {"targetingKey": st.text(min_size=1, max_size=5), "staff": st.booleans()},  # a missing one is false to the oracle alone
    optional={name: value for name, value in TYPES.items() if name != "staff"},
)


@st.composite
def comparisons(draw: st.DrawFn) -> dict[str, Any]:
    """One condition on an attribute, of a kind that its values have."""
    name = draw(st.sampled_from(list(TYPES)))
    value = TYPES[name]
    kinds = ["exists", "is missing", "in", "not in", "equals", "not equals", "exactly equals", "not exactly equals"]
    kinds += {"age": ["<", "<=", ">", ">="], "version": list(VERSIONS)}.get(name, [])
    if name in ("country", "plan", "user.city"):
        kinds += ["starts with", "ends with", "contains"]
    word = draw(st.sampled_from(kinds))
    condition: dict[str, Any] = {"attribute": name, "operator": word}
    if word in ("in", "not in"):
        condition["value"] = draw(st.lists(value, min_size=1, max_size=3))
    elif word not in ("exists", "is missing"):
        condition["value"] = draw(value)
    return condition


def _negated(condition: dict[str, Any], negated: bool) -> dict[str, Any]:
    return {**condition, "not": True} if negated and condition.get("operator") not in ("in", "not in") else condition


def conditions(depth: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    """Any condition; `all` where it is allowed."""
    kinds = [comparisons(), st.sampled_from(list(SEGMENTS)).map(lambda name: {"segment": name})]
    if depth < 2:
        inner = st.lists(conditions(depth + 1), min_size=1, max_size=3)
        kinds.append(inner.map(lambda items: {"any": items}))
        if depth:
            kinds.append(inner.map(lambda items: {"all": items}))
    plain = st.builds(_negated, st.one_of(kinds), st.booleans())
    if depth:
        return plain
    return plain | st.lists(conditions(1), min_size=1, max_size=3).map(lambda items: {"all": items, "not": True})


splits = st.builds(
    lambda names, weights, by: {
        "split": names if weights is None else dict(zip(names, weights, strict=False)), **({} if by is None else {"by": by})
    },
    st.permutations(list(VARIANTS)),
    st.none() | st.lists(st.integers(0, 100), min_size=1, max_size=3),
    st.none() | st.sampled_from(["country", "age", ["$flagd.flagKey", "targetingKey"], ["targetingKey", "plan"]]),
)  # fmt: skip
serves = st.sampled_from([*VARIANTS, None]) | splits


@st.composite
def rule_lists(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A list of rules without a fault."""
    named = st.none() | NAMES
    lists = draw(st.lists(st.lists(conditions(), min_size=1, max_size=3), max_size=3))
    rules = [{"when": when, "serve": draw(serves)} for when in lists]
    if draw(st.booleans()):
        rules.append({"serve": draw(serves)})
    names = [draw(named) for _ in rules]
    return [rule if name is None else {"name": name, **rule} for rule, name in zip(rules, names, strict=True)]


# --- what they mean ----------------------------------------------------------------------------------------------------


def decided(rules: list[dict[str, Any]], context: dict[str, Any]) -> str | None:
    """The variant that the first rule whose conditions hold serves; None for the default variant."""
    for rule in rules:
        if all(holds(condition, context) for condition in rule.get("when", [])):
            return served(rule["serve"], context)
    return None


def holds(condition: dict[str, Any], context: dict[str, Any]) -> bool:
    """Whether one condition holds."""
    if "any" in condition:
        held = any(holds(item, context) for item in condition["any"])
    elif "all" in condition:
        held = all(holds(item, context) for item in condition["all"])
    elif condition.get("segment") == "beta":
        held = context.get("country") in ("DE", "FR")
    elif condition.get("segment") == "free":
        held = context.get("plan") == "free"
    else:
        held = compared(context.get(condition["attribute"]), condition["operator"], condition.get("value"))
    return held is not condition.get("not", False)


def compared(actual: Any, word: str, value: Any) -> bool:
    """One comparison. A missing attribute equals nothing, and counts as 0 where numbers are ordered."""
    match word:
        case "equals" | "exactly equals":
            return bool(actual == value)
        case "not equals" | "not exactly equals":
            return bool(actual != value)
        case "exists" | "is missing":
            return (actual is None) is (word == "is missing")
        case "in" | "not in":
            return (actual in value) is (word == "in")
        case "<" | "<=" | ">" | ">=":
            return ORDERED[word](actual or 0, value)
    if actual is None:
        return False
    match word:
        case "starts with":
            return bool(actual.startswith(value))
        case "ends with":
            return bool(actual.endswith(value))
        case "contains":
            return value in actual
    return versions(semver.Version.parse(actual), word.removeprefix("sem_ver "), semver.Version.parse(value))


def versions(one: semver.Version, sign: str, other: semver.Version) -> bool:
    """One comparison of versions."""
    match sign:
        case "~":
            return (one.major, one.minor) == (other.major, other.minor)
        case "^":
            return one.major == other.major
        case "=":
            return one == other
    return {**ORDERED, "!=": operator.ne}[sign](one, other)


def served(serve: Any, context: dict[str, Any]) -> str | None:
    """The variant, by flagd's own arithmetic where it is split."""
    if not isinstance(serve, dict):
        return serve
    split, by = serve["split"], serve.get("by")
    shares = dict.fromkeys(split, 1) if isinstance(split, list) else split
    data = {**context, "$flagd.flagKey": KEY}
    if isinstance(by, list):
        value: Any = "".join(str(data.get(name) or "") for name in by)
    else:
        value = [KEY, context["targetingKey"]] if by is None else data.get(by)
    place = mmh3.hash(cbor2.dumps(value, canonical=True), signed=False) * sum(shares.values()) >> 32
    if value is None:
        return None
    for name, weight in shares.items():
        place -= weight
        if place < 0:
            return str(name)
    return None
