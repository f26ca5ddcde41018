"""Segments: named rules that flags share, `$evaluators` underneath (flagd). Written as conditions or as a raw rule.

    {"when": [{"attribute": "country", "operator": "in", "value": ["DE", "AT"]}]}
    {"rule": {"in": [{"var": "country"}, ["DE", "AT"]]}}

flagd does not resolve a segment inside a segment, so there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from rescind import wire
from rescind.evaluation import check, check_document
from rescind.evaluation.frame import is_rule

from flagd.core import documents, ruleform, ruleread

SEGMENTS_MAX: Final = 1000
FAULTS_MAX: Final = 100
"""Faults of other flags that one change reports."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def read(document: object, at: str) -> tuple[dict[str, Any] | None, list[wire.Fault]]:
    """The rule of a segment as it was written at `at`, or None with everything that is wrong with it."""
    if not isinstance(document, dict):
        return None, [_fault(at, "wrong_type", "a segment has `when`, a list of conditions, or `rule`, or is a rule itself")]
    if "when" in document:
        return _read_conditions(document, at)
    if "rule" in document:
        faults = documents.unknown_fields(document, {"rule": dict}, at)
        rule, wrong = _checked(document["rule"], f"{at}/rule")
        return (None if faults else rule), faults + wrong
    return _checked(document, at)


def name_faults(name: object, at: str) -> list[wire.Fault]:
    """What is wrong with a segment's name."""
    if isinstance(name, str) and _NAME.fullmatch(name):
        return []
    detail = "a segment's name has letters, digits, `.`, `_` and `-`, 128 at most, a letter or digit first"
    return [_fault(at, "bad_name", detail)]


def when_of(rule: object) -> list[dict[str, Any]] | None:
    """The conditions of a segment's rule; None where they cannot say exactly the same.

    >>> when_of({"in": [{"var": "country"}, ["DE"]]})
    [{'attribute': 'country', 'operator': 'in', 'value': ['DE']}]
    """
    rules = ruleform.rules_of({"if": [rule, None]})
    return None if not rules or "name" in rules[0] else rules[0].get("when")


def references(rule: object) -> set[str]:
    """The names of the segments that a rule, or anything in it, refers to."""
    return set(_references(rule))


def broken(
    flags: Mapping[str, dict[str, Any]], before: Mapping[str, Any], after: Mapping[str, Any], places: Mapping[str, str]
) -> list[wire.Fault]:
    """What is wrong with definitions once the segments are others: `in_use` where one is gone, else what `check` finds.

    `places` says where the change wrote (or took away) a segment.
    """
    moved = {name for name in {*before, *after} if before.get(name) != after.get(name) or (name in before) != (name in after)}
    found: list[wire.Fault] = []
    for key, definition in flags.items():
        named = sorted(references(definition.get("targeting")) & moved)
        if not named or len(found) >= FAULTS_MAX:
            continue
        gone = [name for name in named if name not in after]
        found += [_fault(places.get(name, ""), "in_use", f"flag `{key}` refers to segment `{name}`") for name in gone]
        now = [] if gone else check(definition, evaluators=after)
        old = {(fault.pointer, fault.code) for fault in check(definition, evaluators=before)} if now else set()
        new = [fault for fault in now if (fault.pointer, fault.code) not in old]
        found += [_fault(places.get(named[0], ""), str(one.code), f"flag `{key}`{one.pointer}: {one.detail}") for one in new]
    return found[:FAULTS_MAX]


def _read_conditions(document: dict[str, Any], at: str) -> tuple[dict[str, Any] | None, list[wire.Fault]]:
    faults = documents.unknown_fields(document, {"when": list}, at)
    when = document["when"]
    if not isinstance(when, list) or not when:
        return None, [*faults, _fault(f"{at}/when", "wrong_type", "`when` is a list of at least one condition")]
    wrong = ruleread.faults_of([{"when": when, "serve": None}], "")
    faults += [msgspec.structs.replace(one, pointer=at + one.pointer.removeprefix("/0")) for one in wrong]
    if faults:
        return None, faults
    rule = ruleform.targeting_of([{"when": when, "serve": None}])["if"][0]
    _, wrong = _checked(rule, f"{at}/when")
    return (None if wrong else rule), [msgspec.structs.replace(one, pointer=f"{at}/when") for one in wrong]


def _checked(rule: object, at: str) -> tuple[dict[str, Any] | None, list[wire.Fault]]:
    if not isinstance(rule, dict) or not is_rule(rule):
        return None, [_fault(at, "wrong_type", "a rule is an object with exactly one key, its operator")]
    prefix = documents.pointer("$evaluators", "_")
    faults = [
        _fault(at + fault.pointer.removeprefix(prefix), str(fault.code), fault.detail)
        for fault in check_document({"flags": {}, "$evaluators": {"_": rule}})
    ]
    return (None if faults else rule), faults


def _references(rule: object) -> Iterator[str]:
    waiting = [rule]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting.extend(one)
        elif isinstance(one, dict):
            if is_rule(one) and isinstance(one.get("$ref"), str):
                yield one["$ref"]
            waiting.extend(one.values())


def _fault(at: str, code: str, detail: str) -> wire.Fault:
    return wire.Fault(pointer=at, code=code, detail=detail)
