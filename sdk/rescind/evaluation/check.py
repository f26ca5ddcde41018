"""Checking a flag's definition before it is accepted: everything that is wrong, at once, in bounded time.

By flags.json of open-feature/flagd-schemas, and stricter where flagd's own documents are: the default variant and every
variant that targeting names must exist, numbers stay within 2^53 - 1, and no property is unknown (a released core of flagd
refuses a whole flag set for one).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from rescind.evaluation.errors import Fault, FaultCode
from rescind.evaluation.faults import Faults, Path, shown
from rescind.evaluation.limits import DEPTH_MAX, FLAG_NODES_MAX, FLAG_SIZE_MAX, SAFE_INTEGER
from rescind.evaluation.measure import measure
from rescind.evaluation.rules import RuleCheck

_PROPERTIES: Final = ("state", "variants", "defaultVariant", "targeting", "metadata")


def check(
    definition: object,
    *,
    pointer: str = "",
    evaluators: Mapping[str, Any] | None = None,
    off_variant: str | None = None,
) -> list[Fault]:
    """Every fault of a flagd flag object, each pointing below `pointer`; [] for a good one.

    `evaluators` are the shared rules that `$ref` may name; None where they are not known. `off_variant` has to be among the
    variants.

    >>> check({"state": "ON", "variants": {"on": True}})
    [Fault(pointer='/state', detail="'ON' is no state; there are ENABLED and DISABLED", code='wrong_type')]
    """
    faults = Faults(pointer)
    check_flag(definition, None, faults, evaluators, off_variant)
    return faults.found


def check_flag(
    definition: object,
    path: Path,
    faults: Faults,
    evaluators: Mapping[str, Any] | None,
    off_variant: str | None = None,
    properties: tuple[str, ...] = _PROPERTIES,
) -> None:
    """Add the faults of the flag object at `path` to `faults`."""
    size = measure(definition, DEPTH_MAX, FLAG_NODES_MAX, FLAG_SIZE_MAX)
    if size.excess is not None:
        faults.add(path, *size.excess)
        return
    if not isinstance(definition, dict):
        faults.add(path, FaultCode.WRONG_TYPE, f"a flag is an object, not {shown(definition)}")
        return
    for name in definition:
        if name not in properties:
            detail = f"a flag has no property {shown(name)}; there are {', '.join(_PROPERTIES)}"
            faults.add((path, name), FaultCode.UNKNOWN_PROPERTY, detail)
    _check_state(definition, path, faults)
    variants = _check_variants(definition, path, faults)
    _check_names(definition, variants, off_variant, path, faults)
    check_metadata(definition.get("metadata", {}), (path, "metadata"), faults)
    if definition.get("targeting", {}) != {}:
        _check_targeting(definition["targeting"], variants, size.nodes, (path, "targeting"), faults, evaluators)


def _check_state(definition: dict[Any, Any], path: Path, faults: Faults) -> None:
    if "state" not in definition:
        faults.add((path, "state"), FaultCode.MISSING, "the state is missing: ENABLED or DISABLED")
    elif definition["state"] not in ("ENABLED", "DISABLED"):
        detail = f"{shown(definition['state'])} is no state; there are ENABLED and DISABLED"
        faults.add((path, "state"), FaultCode.WRONG_TYPE, detail)


def _check_variants(definition: dict[Any, Any], path: Path, faults: Faults) -> dict[str, Any]:
    """Note the faults of the variants; the variants, as far as they can be used."""
    place: Path = (path, "variants")
    if "variants" not in definition:
        faults.add(place, FaultCode.MISSING, "the variants are missing")
        return {}
    variants = definition["variants"]
    if not isinstance(variants, dict):
        faults.add(place, FaultCode.WRONG_TYPE, f"variants are an object of name and value, not {shown(variants)}")
        return {}
    if not variants:
        faults.add(place, FaultCode.MISSING, "there has to be at least one variant")
    kinds = {name: _kind(value) for name, value in variants.items()}
    first = next((kind for kind in kinds.values() if kind is not None), None)
    for name, kind in kinds.items():
        if not isinstance(name, str) or not name:
            faults.add((place, name), FaultCode.WRONG_TYPE, "a variant needs a name")
        if kind is None:
            detail = f"a variant's value is a boolean, string, number or object, not {shown(variants[name])}"
            faults.add((place, name), FaultCode.WRONG_TYPE, detail)
        elif kind != first:
            detail = f"all variants are of one type: this is of type {kind}, the first of type {first}"
            faults.add((place, name), FaultCode.MIXED_TYPES, detail)
        if kind == "number" and not _is_safe(variants[name]):
            faults.add((place, name), FaultCode.OUT_OF_RANGE, "a number has to be within 2^53 - 1 of zero")
    return variants


def _kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int | float):
        return "number"
    return "object" if isinstance(value, dict) else None


def _is_safe(value: float) -> bool:
    return -SAFE_INTEGER <= value <= SAFE_INTEGER and math.isfinite(value)


def _check_names(
    definition: dict[Any, Any], variants: dict[str, Any], off_variant: str | None, path: Path, faults: Faults
) -> None:
    default = definition.get("defaultVariant")
    place: Path = (path, "defaultVariant")
    if default is not None and not isinstance(default, str):
        faults.add(place, FaultCode.WRONG_TYPE, f"the default variant is a name or null, not {shown(default)}")
    elif default is not None and default not in variants:
        faults.add(place, FaultCode.UNKNOWN_VARIANT, f"{shown(default)} is not among the variants")
    if off_variant is not None and off_variant not in variants:
        detail = f"the off variant {shown(off_variant)} is not among the variants"
        faults.add((path, "variants"), FaultCode.UNKNOWN_VARIANT, detail)


def check_metadata(metadata: Any, path: Path, faults: Faults) -> None:
    """Note the faults of a flag's or a flag set's metadata: names with strings, numbers or booleans."""
    if not isinstance(metadata, dict):
        faults.add(path, FaultCode.WRONG_TYPE, f"metadata is an object, not {shown(metadata)}")
        return
    for name, value in metadata.items():
        if not isinstance(name, str) or not name:
            faults.add((path, name), FaultCode.WRONG_TYPE, "metadata needs a name")
        if not isinstance(value, str | int | float):
            detail = f"metadata is a string, number or boolean, not {shown(value)}"
            faults.add((path, name), FaultCode.WRONG_TYPE, detail)


def _check_targeting(
    targeting: Any,
    variants: dict[str, Any],
    nodes: int,
    path: Path,
    faults: Faults,
    evaluators: Mapping[str, Any] | None,
) -> None:
    if not isinstance(targeting, dict):
        faults.add(path, FaultCode.WRONG_TYPE, f"targeting is an object, not {shown(targeting)}")
        return
    rules = RuleCheck(faults, evaluators)
    rules.check(targeting, path)
    rules.check_expansion(nodes, path)
    if variants:
        rules.check_decisions(targeting, variants, path)
