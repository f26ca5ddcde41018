"""Flags for evaluators that never heard of Rescind: everything that stands over a flag, laid as plain flagd terms (P7).

Our own evaluator is handed narrowed kills beside the definition. A foreign one (a flagd provider, a remote evaluation
written by others, an export) knows definitions only, so here the kills become the first rules of the flag's targeting. What
such an evaluator cannot read of a scope counts as in scope (P4): an attribute that is absent or null, and one whose name
JsonLogic takes for a path.

>>> plain_definition(flag)["targeting"]["if"][:2]
[{'or': [{'===': [{'var': ['region', 'eu']}, 'eu']}, {'===': [{'var': 'region'}, None]}]}, 'off']
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rescind import wire

FLAGD = "$flagd"
"""What every evaluator puts into the context itself: a caller's attribute of this name is never seen."""


def plain_document(snapshot: wire.Snapshot) -> dict[str, Any]:
    """The snapshot as one flagd document, for an evaluator that is not ours: `flags`, `$evaluators` and `metadata`.

    The metadata names the environment as `flagSetId` and the revision, "<generation>.<n>", as `version`.
    """
    document: dict[str, Any] = {"flags": {key: plain_definition(flag) for key, flag in snapshot.flags.items()}}
    if snapshot.evaluators:
        document["$evaluators"] = snapshot.evaluators
    document["metadata"] = {
        **snapshot.metadata,
        "flagSetId": snapshot.environment,
        "version": str(snapshot.revision),
    }
    return document


def plain_definition(flag: wire.SnapshotFlag) -> dict[str, Any]:
    """The flag's definition with its narrowed kills laid as targeting. The definition itself where there are none, or where a
    kill of everyone stands over them.

    A disabled flag becomes an enabled one without a default variant: outside the kills' scopes that gives the caller's
    default too, as DISABLED does.
    """
    kills = [kill for kill in flag.kills if kill.scope]
    if len(kills) < len(flag.kills) or not kills:
        return flag.definition
    laid = [step for kill in first_to_last(kills) for step in (scope_rule(kill.scope), served_by(kill, flag))]
    definition = dict(flag.definition)
    if definition.get("state") == "DISABLED":
        definition.update(state="ENABLED", defaultVariant=None)
        definition.pop("targeting", None)
    return {**definition, "targeting": {"if": [*laid, *otherwise(definition.get("targeting"))]}}


def first_to_last(kills: Sequence[wire.Kill]) -> list[wire.Kill]:
    """Narrowed kills in the order in which they decide: the fewest attributes first, of equals the later kill."""
    return sorted(kills, key=lambda kill: len(kill.scope), reverse=True)[::-1]


def served_by(kill: wire.Kill, flag: wire.SnapshotFlag) -> str:
    """The variant that the kill serves: its own off variant, or the flag's where that is gone."""
    variants = flag.definition.get("variants")
    has_own = isinstance(variants, Mapping) and variants.get(kill.off_variant) is not None
    return kill.off_variant if has_own else flag.off_variant


def scope_rule(scope: Mapping[str, Any]) -> Any:
    """The rule that is true for whoever is in `scope`, or cannot tell. A constant `true` where nothing of it can be read."""
    rules = [_attribute_rule(name, value) for name, value in scope.items() if is_readable(name)]
    return True if not rules else rules[0] if len(rules) == 1 else {"and": rules}


def is_readable(name: str) -> bool:
    """Whether JsonLogic reads a context's attribute by this name, and not something else."""
    return name not in ("", FLAGD) and "." not in name


def _attribute_rule(name: str, value: Any) -> dict[str, Any]:
    """Equal, absent or null. Both ways to see the absent: evaluators differ in whether a default also stands for a null."""
    return {"or": [{"===": [{"var": [name, value]}, value]}, {"===": [{"var": name}, None]}]}


def otherwise(targeting: Any) -> list[Any]:
    """What follows in an `if` that was laid before the flag's own rules: those, a chain continued without a further level."""
    if not targeting:
        return []
    match targeting:
        case {"if": [*steps]} if len(targeting) == 1 and steps:
            return steps
        case _:
            return [targeting]
