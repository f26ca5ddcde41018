"""Checking a whole flagd document: flags, `$evaluators`, metadata."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rescind.evaluation.check import check_flag, check_metadata
from rescind.evaluation.errors import Fault, FaultCode
from rescind.evaluation.faults import Faults, Path, shown
from rescind.evaluation.limits import DEPTH_MAX, DOCUMENT_NODES_MAX, DOCUMENT_SIZE_MAX, FLAG_NODES_MAX, FLAG_SIZE_MAX
from rescind.evaluation.measure import measure
from rescind.evaluation.rules import RuleCheck

_KEYED: Final = ("key", "state", "variants", "defaultVariant", "targeting", "metadata")
_ENVELOPE_DEPTH: Final = 3


def check_document(document: object, *, arrays: bool = True) -> list[Fault]:
    """Every fault of a flagd document, each with its pointer; [] for a good one.

    `arrays`: flags may be a list of objects with a `key`, as the flagd daemon reads them; flagd's providers do not.

    >>> check_document({"flags": {}})
    []
    """
    faults = Faults("")
    excess = measure(document, DEPTH_MAX + _ENVELOPE_DEPTH, DOCUMENT_NODES_MAX, DOCUMENT_SIZE_MAX).excess
    if excess is not None:
        faults.add(None, *excess)
    elif not isinstance(document, dict):
        faults.add(None, FaultCode.WRONG_TYPE, f"a flag set is an object, not {shown(document)}")
    else:
        _check_set(document, faults, arrays)
    return faults.found


def _check_set(document: dict[Any, Any], faults: Faults, arrays: bool) -> None:
    evaluators = document.get("$evaluators", {})
    if isinstance(evaluators, dict):
        _check_evaluators(evaluators, faults)
    else:
        faults.add((None, "$evaluators"), FaultCode.WRONG_TYPE, f"evaluators are an object, not {shown(evaluators)}")
        evaluators = {}
    metadata = document.get("metadata", {})
    check_metadata(metadata, (None, "metadata"), faults)
    for name in ("flagSetId", "version"):
        if isinstance(metadata, dict) and not isinstance(metadata.get(name, ""), str):
            faults.add(((None, "metadata"), name), FaultCode.WRONG_TYPE, f"{name} is a string")
    if "flags" not in document:
        faults.add((None, "flags"), FaultCode.MISSING, "the flags are missing")
        return
    for path, flag, properties in _flags(document["flags"], faults, arrays):
        if faults.full:
            return
        check_flag(flag, path, faults, evaluators, properties=properties)


def _check_evaluators(evaluators: dict[Any, Any], faults: Faults) -> None:
    for name, rule in evaluators.items():
        path: Path = ((None, "$evaluators"), name)
        excess = measure(rule, DEPTH_MAX, FLAG_NODES_MAX, FLAG_SIZE_MAX).excess
        if excess is not None:
            faults.add(path, *excess)
        elif not isinstance(rule, dict):
            faults.add(path, FaultCode.WRONG_TYPE, f"an evaluator is a rule, not {shown(rule)}")
        elif rule:
            RuleCheck(faults, None, shared=True).check(rule, path)


def _flags(flags: Any, faults: Faults, arrays: bool) -> Iterator[tuple[Path, Any, tuple[str, ...]]]:
    """Each flag with its path and the properties that it may have."""
    place: Path = (None, "flags")
    if isinstance(flags, dict):
        for key, flag in flags.items():
            if not isinstance(key, str) or not key:
                faults.add((place, key), FaultCode.WRONG_TYPE, "a flag needs a key")
            yield (place, key), flag, _KEYED[1:]
    elif isinstance(flags, list) and arrays:
        seen: set[str] = set()
        for index, flag in enumerate(flags):
            _check_key(flag, (place, index), seen, faults)
            yield (place, index), flag, _KEYED
    else:
        faults.add(place, FaultCode.WRONG_TYPE, f"flags are an object of key and flag, not {shown(flags)}")


def _check_key(flag: Any, path: Path, seen: set[str], faults: Faults) -> None:
    key = flag.get("key") if isinstance(flag, dict) else None
    if not isinstance(key, str) or not key:
        faults.add((path, "key"), FaultCode.MISSING, "a flag in a list needs a key")
    elif key in seen:
        faults.add((path, "key"), FaultCode.DUPLICATE, f"there are two flags {shown(key)}")
    else:
        seen.add(key)
