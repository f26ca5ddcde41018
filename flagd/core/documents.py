"""Reading what people write: every fault of a document at once, each with its JSON pointer (RFC 6901).

Stricter than the wire: a field that no one knows is a typing error and is said, with the word that was probably meant.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from rescind import wire

FIELDS = {field.name: field.type for field in msgspec.structs.fields(wire.Flag)}
REQUIRED = ("key", "definition")
UNDER_DEFINITION = ("state", "variants", "defaultVariant", "targeting")
OPERATIONS_MAX = 1000
REASON_LENGTH_MAX = 2000
PREREQUISITES_MAX = 10
REVISION_MAX = 2**63 - 1

_KEY = re.compile(r"[^\x00-\x20\x7f/?#%](?:[^\x00-\x1f\x7f/?#%]*[^\x00-\x20\x7f/?#%])?")
_PATH = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_STRICTER: dict[str, Any] = {
    "services": list[wire.Name],
    "tier": Annotated[int, Meta(ge=0, le=1000)] | None,
    "max_staleness_seconds": Annotated[float, Meta(gt=0, le=10**9)] | None,
    "effect_attributes": list[Annotated[str, Meta(min_length=1, max_length=128)]],
    "off_variant": Annotated[str, Meta(min_length=1, max_length=255, pattern="^[^\\x00-\\x1f]+$")],
}

Check = Callable[[dict[str, Any]], list[wire.Fault]]
"""The evaluator's check of one definition: its faults, with pointers into the definition."""


def pointer(*steps: str | int) -> str:
    """The JSON pointer of these steps: `pointer("flags", "a/b", 0)` is `/flags/a~1b/0`."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def is_key(text: str) -> bool:
    """Whether this can be the key of a flag: no control characters, none of / ? # %, no space at its ends."""
    return len(text) <= 255 and _KEY.fullmatch(text) is not None


def read_flag(document: object, at: str, check: Check) -> tuple[wire.Flag | None, list[wire.Fault]]:
    """A flag as it was written at pointer `at`, or None with everything that is wrong with it."""
    if not isinstance(document, dict):
        return None, [wire.Fault(pointer=at, code="wrong_type", detail="a flag is an object")]
    misplaced = [name for name in UNDER_DEFINITION if name in document]
    faults = unknown_fields(document, {**FIELDS, **dict.fromkeys(misplaced)}, at)
    if misplaced:
        detail = f"{', '.join(UNDER_DEFINITION)} belong under `definition`"
        faults.append(wire.Fault(pointer=at + pointer(misplaced[0]), code="misplaced", detail=detail))
    values: dict[str, Any] = {}
    for name in FIELDS:
        if name in document:
            _read_field(document[name], name, at, values, faults)
        elif name in REQUIRED:
            faults.append(wire.Fault(pointer=f"{at}/{name}", code="missing", detail=f"`{name}` is required"))
    faults.extend(_key_faults(values, at))
    faults.extend(_definition_faults(values, at, check))
    return (None, faults) if faults else (wire.Flag(**values), [])


def flag_faults(flag: wire.Flag, at: str, check: Check) -> list[wire.Fault]:
    """What is wrong with a flag that was not read from a document."""
    values = {"key": flag.key, "definition": flag.definition, "off_variant": flag.off_variant}
    return _key_faults(values, at) + _definition_faults(values, at, check)


def unknown_fields(document: Mapping[str, Any], known: Mapping[str, Any], at: str) -> list[wire.Fault]:
    """One fault for each field of the document that is not known, with the name that was probably meant."""
    faults = []
    for name in document:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            faults.append(wire.Fault(pointer=at + pointer(name), code="unknown_field", detail=f"no field `{name}`{hint}"))
    return faults


def read_reason(document: Mapping[str, Any], at: str = "") -> tuple[str | None, list[wire.Fault]]:
    """The reason of a write, or None where none was given."""
    reason = document.get("reason")
    if reason is None:
        return None, []
    if not isinstance(reason, str) or len(reason) > REASON_LENGTH_MAX or "\0" in reason:
        detail = f"a reason is a text of at most {REASON_LENGTH_MAX} characters"
        return None, [wire.Fault(pointer=f"{at}/reason", code="wrong_type", detail=detail)]
    return reason, []


def read_revision(document: Mapping[str, Any]) -> tuple[wire.Revision | None, list[wire.Fault]]:
    """The revision that a write expects, in any of the forms in which people write one; None where it expects none."""
    expected = document.get("expected_revision")
    try:
        if expected is None:
            return None, []
        revision = wire.Revision.of(expected if isinstance(expected, str | int) else msgspec.convert(expected, wire.Revision))
        if min(revision.generation, revision.n) >= 0 and max(revision.generation, revision.n) <= REVISION_MAX:
            return revision, []
        raise ValueError("out of range")
    except (ValueError, msgspec.ValidationError):
        detail = 'a revision is "<generation>.<n>", for example "1.4712"'
        return None, [wire.Fault(pointer="/expected_revision", code="wrong_type", detail=detail)]


def read_past_gate(document: Mapping[str, Any], reason: str | None) -> tuple[bool, list[wire.Fault]]:
    """Whether a write goes past the gate of declarations, which takes a reason."""
    past_gate = document.get("past_gate", False)
    if not isinstance(past_gate, bool):
        return False, [wire.Fault(pointer="/past_gate", code="wrong_type", detail="`past_gate` is true or false")]
    if past_gate and not reason:
        return False, [wire.Fault(pointer="/reason", code="missing", detail="`past_gate` needs a reason")]
    return past_gate, []


def _read_field(value: object, name: str, at: str, values: dict[str, Any], faults: list[wire.Fault]) -> None:
    if name == "prerequisites":
        values[name] = _read_prerequisites(value, f"{at}/{name}", faults)
        return
    try:
        values[name] = msgspec.convert(value, type=_STRICTER.get(name, FIELDS[name]))
    except msgspec.ValidationError as error:
        detail, _, path = str(error).partition(" - at ")
        steps = [step or index for step, index in _PATH.findall(path)]
        faults.append(wire.Fault(pointer=f"{at}/{name}{pointer(*steps)}", code="wrong_type", detail=detail))


def _read_prerequisites(value: object, at: str, faults: list[wire.Fault]) -> list[wire.Prerequisite]:
    if not isinstance(value, list) or len(value) > PREREQUISITES_MAX:
        detail = f"`prerequisites` is a list of at most {PREREQUISITES_MAX} objects with `flag` and `variant`"
        faults.append(wire.Fault(pointer=at, code="wrong_type", detail=detail))
        return []
    read: list[wire.Prerequisite] = []
    for index, item in enumerate(value):
        place = f"{at}/{index}"
        if not isinstance(item, dict):
            faults.append(wire.Fault(pointer=place, code="wrong_type", detail="a prerequisite has `flag` and `variant`"))
            continue
        faults.extend(unknown_fields(item, dict.fromkeys(("flag", "variant")), place))
        missing = [name for name in ("flag", "variant") if not isinstance(item.get(name), str) or not item[name]]
        faults.extend(wire.Fault(pointer=f"{place}/{name}", code="missing", detail=f"`{name}` is a text") for name in missing)
        if not missing and any(item["flag"] == one.flag for one in read):
            detail = f"flag `{item['flag']:.255}` is named twice"
            faults.append(wire.Fault(pointer=f"{place}/flag", code="twice", detail=detail))
        elif not missing:
            read.append(wire.Prerequisite(flag=item["flag"], variant=item["variant"]))
    return read


def _key_faults(values: Mapping[str, Any], at: str) -> list[wire.Fault]:
    if "key" not in values or is_key(values["key"]):
        return []
    detail = "a key has no control characters, none of / ? # %, and no space at its ends"
    return [wire.Fault(pointer=f"{at}/key", code="bad_key", detail=detail)]


def _definition_faults(values: Mapping[str, Any], at: str, check: Check) -> list[wire.Fault]:
    definition = values.get("definition")
    if definition is None:
        return []
    faults = [
        wire.Fault(pointer=f"{at}/definition{fault.pointer}", code=fault.code, detail=fault.detail)
        for fault in check(definition)
    ]
    variants = definition.get("variants")
    off_variant = values.get("off_variant", wire.OFF)
    if isinstance(variants, dict) and off_variant not in variants:
        names = ", ".join(f"`{name}`" for name in list(variants)[:20])
        detail = f"the off variant `{off_variant}` is not among the variants: {names or 'there are none'}"
        faults.append(wire.Fault(pointer=f"{at}/off_variant", code="unknown_variant", detail=detail))
    return faults
