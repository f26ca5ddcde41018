"""flagd's own document: a flag set with `flags`, `$evaluators` and `metadata` (flagd.dev/schema/v0/flags.json).

What flagd has no field for (owner, services, off variant, ...) stays as it is held where a flag exists already; a new flag
gets defaults, and the off variant that its variants suggest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from rescind import wire
from rescind.evaluation import check_document

from flagd.core import documents
from flagd.core.changes import HeldFlag, Operation, Plan, Put, same
from flagd.core.prerequisites import Derivation, Written, as_written

SCHEMA = "https://flagd.dev/schema/v0/flags.json"
FLAGS_MAX = 10_000


class FlagSet(Struct, frozen=True, kw_only=True):
    """A flagd document that was read. None: it says nothing of them, and what is held stays."""

    flags: list[wire.Flag]
    pointers: list[str]
    """Where each flag stands in the document."""
    evaluators: dict[str, Any] | None
    metadata: dict[str, Any] | None


def read(document: object) -> tuple[FlagSet | None, list[wire.Fault]]:
    """A flagd document, its flags keyed or in a list, or None with everything that is wrong with it."""
    faults = [
        wire.Fault(pointer=fault.pointer, detail=fault.detail, code=str(fault.code)) for fault in check_document(document)
    ]
    if not isinstance(document, dict) or not isinstance(document.get("flags"), dict | list):
        return None, faults
    if len(document["flags"]) > FLAGS_MAX:
        faults.append(wire.Fault(pointer="/flags", code="too_many", detail=f"at most {FLAGS_MAX} flags at once"))
        return None, faults
    flags, pointers = [], []
    flawed = {"/".join(fault.pointer.split("/")[:3]) for fault in faults}
    for at, key, definition in _entries(document["flags"]):
        if at in flawed or not isinstance(definition, dict):
            continue  # that has been said
        flag, wrong = _read_one(key, definition, at)
        faults.extend(wrong)
        if flag is not None:
            flags.append(flag)
            pointers.append(at)
    if faults:
        return None, faults
    evaluators, metadata = document.get("$evaluators"), document.get("metadata")
    return FlagSet(flags=flags, pointers=pointers, evaluators=evaluators, metadata=metadata), []


def _entries(flags: dict[str, Any] | list[Any]) -> Iterator[tuple[str, Any, Any]]:
    """Pointer, key and definition of each flag of the document, in either form."""
    if isinstance(flags, dict):
        for key, definition in flags.items():
            yield documents.pointer("flags", key), key, definition
        return
    for index, flag in enumerate(flags):
        if isinstance(flag, dict):
            bare = {name: value for name, value in flag.items() if name != "key"}
            yield documents.pointer("flags", index), flag.get("key"), bare


def keep(operations: Sequence[Operation], held: Mapping[str, HeldFlag]) -> list[Operation]:
    """The puts of an import, each with all that flagd has no field for as it is held."""
    kept: list[Operation] = []
    for operation in operations:
        match operation:
            case Put(flag=flag) if flag.key in held:
                kept.append(Put(flag=_with_definition(held[flag.key].flag, flag)))
            case _:
                kept.append(operation)
    return kept


def moving(plan: Plan, held: Mapping[str, HeldFlag]) -> Plan:
    """The plan of an import without the flags that stay exactly as they are: nobody has to hear of those."""
    puts = [flag for flag in plan.puts if flag.key not in held or not _is_same(held[flag.key].flag, flag)]
    return msgspec.structs.replace(plan, puts=puts)


def _is_same(held: wire.Flag, flag: wire.Flag) -> bool:
    return held.off_variant == flag.off_variant and same(held.definition, flag.definition)


def beside(document: FlagSet, evaluators: dict[str, Any], metadata: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Evaluators and metadata after the import: the document's, or as they are held where it says nothing."""
    return (
        evaluators if document.evaluators is None else document.evaluators,
        metadata if document.metadata is None else document.metadata,
    )


def relocated(faults: Sequence[wire.Fault]) -> list[wire.Fault]:
    """Faults of flags, with pointers into the document that they were imported from."""
    return [msgspec.structs.replace(fault, pointer=fault.pointer.replace("/definition", "", 1)) for fault in faults]


def document_of(
    flags: Sequence[wire.Flag], evaluators: dict[str, Any], metadata: dict[str, Any], bucketing: str = "v3"
) -> dict[str, Any]:
    """The flagd document of these flags, which `read` takes again: prerequisites are rules in it, kills are not (P7)."""
    derivation = Derivation({flag.key: Written(flag=flag) for flag in flags}, evaluators, bucketing)
    document: dict[str, Any] = {"$schema": SCHEMA, "flags": {flag.key: derivation.flag(flag.key).definition for flag in flags}}
    if evaluators:
        document["$evaluators"] = evaluators
    if metadata:
        document["metadata"] = metadata
    return document


def off_variant_of(variants: Mapping[str, Any]) -> str | None:
    """The variant a kill should serve: the one named off, else the only one that is false; None if nothing tells.

    >>> off_variant_of({"yes": True, "no": False})
    'no'
    """
    if wire.OFF in variants:
        return wire.OFF
    falses = [name for name, value in variants.items() if value is False]
    return falses[0] if len(falses) == 1 else None


def _read_one(key: Any, definition: dict[str, Any], at: str) -> tuple[wire.Flag | None, list[wire.Fault]]:
    """The flag with the off variant that its variants suggest. Its definition has been checked with the document."""
    off_variant = off_variant_of(definition.get("variants", {})) or definition.get("defaultVariant") or wire.OFF
    flag, faults = documents.read_flag({"key": key, "definition": definition, "off_variant": off_variant}, at, _checked)
    return flag, relocated(faults)


def _checked(_: dict[str, Any]) -> list[wire.Fault]:
    return []


def _with_definition(held: wire.Flag, flag: wire.Flag) -> wire.Flag:
    variants = flag.definition.get("variants", {})
    off_variant = held.off_variant if held.off_variant in variants else flag.off_variant
    return msgspec.structs.replace(held, definition=as_written(held, flag.definition), off_variant=off_variant)
