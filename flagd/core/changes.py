"""Change lists: what people ask for, judged whole against what is held (P1, P4).

A change is planned before anything is written: either every operation stands and the plan says what to write, or the
faults say everything that is wrong with it. A standing kill wins over edits: the variant that it serves can neither be
taken away nor given another value, and a killed flag cannot be archived, for that would hand it back to the callers'
defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field
from rescind import wire

from flagd.core import documents, ruleread, segments


class Put(Struct, frozen=True, kw_only=True):
    """Write a flag: a new one, or the next state of a held one."""

    flag: wire.Flag


class Archive(Struct, frozen=True, kw_only=True):
    """Take a flag out of service. Its key is never given to another."""

    key: str


class SetBucketing(Struct, frozen=True, kw_only=True):
    """Evaluate the environment with another generation of bucketing."""

    generation: str


class PutSegment(Struct, frozen=True, kw_only=True):
    """Write a rule that flags share, under its name."""

    name: str
    rule: dict[str, Any]


class DeleteSegment(Struct, frozen=True, kw_only=True):
    """Take away a shared rule that no flag refers to."""

    name: str


Operation = Put | Archive | SetBucketing | PutSegment | DeleteSegment


class HeldFlag(Struct, frozen=True, kw_only=True):
    """A flag as it is stored, with the kills that stand over it."""

    flag: wire.Flag
    epoch: int = 1
    changed: wire.Revision = wire.Revision()
    is_archived: bool = False
    kills: Sequence[wire.Kill] = ()


class Plan(Struct, kw_only=True):
    """What a change writes."""

    puts: list[wire.Flag]
    archives: list[str]
    fences: list[tuple[str, str]]
    """(key, off variant) of each flag that is new or has another off variant than before."""
    bucketing: str | None = None
    """The environment's generation of bucketing from now on; None: as it is."""
    segments: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """Shared rules by name as they are from now on, None for one that is taken away."""

    @property
    def proceeding(self) -> list[str]:
        """The flags that declare that effects go on without the server."""
        return [flag.key for flag in self.puts if flag.on_unreachable == "proceed"]

    def operations(self) -> list[dict[str, str]]:
        """As the revision records them."""
        done = [{"op": "put", "key": flag.key} for flag in self.puts]
        done += [{"op": "archive", "key": key} for key in self.archives]
        done += [
            {"op": "delete_segment" if rule is None else "put_segment", "key": name} for name, rule in self.segments.items()
        ]
        return done if self.bucketing is None else [*done, {"op": "bucketing", "key": self.bucketing}]

    def acts(self, environment: str) -> list[tuple[str, str, dict[str, Any]]]:
        """As the audit log tells them: (action, object, detail) of each operation."""
        done: list[tuple[str, str, dict[str, Any]]] = [("flag.put", flag.key, {}) for flag in self.puts]
        done += [("flag.archive", key, {}) for key in self.archives]
        done += [("segment.delete" if rule is None else "segment.put", name, {}) for name, rule in self.segments.items()]
        if self.bucketing is not None:
            done.append(("environment.bucketing", environment, {"generation": self.bucketing}))
        return done

    def evaluators(self, held: Mapping[str, Any]) -> dict[str, Any]:
        """The environment's shared rules after the change."""
        after = {**held, **self.segments}
        return {name: rule for name, rule in after.items() if name not in self.segments or rule is not None}

    def keys(self) -> list[str]:
        """Of the flags it touches."""
        return [flag.key for flag in self.puts] + self.archives


def key_of(operation: Operation) -> str | None:
    """The key of the flag that the operation is about; None where it is about all."""
    match operation:
        case Put(flag=flag):
            return flag.key
        case Archive(key=key):
            return key
        case _:
            return None


def keys_of(operations: Sequence[Operation]) -> list[str]:
    """The keys of the flags that the operations are about."""
    return [key for operation in operations if (key := key_of(operation)) is not None]


def pointers_of(operations: Sequence[Operation], places: Sequence[int] | None = None) -> list[str]:
    """Where the flags of a change list stand in it; `places` are the operations' own, where others stand between them."""
    below = {Put: "/flag", PutSegment: "/segment"}
    indices = range(len(operations)) if places is None else places
    return [f"/operations/{index}{below.get(type(item), '')}" for index, item in zip(indices, operations, strict=True)]


def is_kill(item: object) -> bool:
    """Whether an operation, as it was written, is a kill: it is read and carried out by the roof, not by this wing."""
    return isinstance(item, dict) and item.get("op") == "kill"


def holds_kill(items: object) -> bool:
    """Whether any operation of a list is one."""
    return isinstance(items, list) and any(is_kill(item) for item in items)


def places_beside_kills(items: Sequence[object]) -> list[int]:
    """Where the operations stand that are no kills."""
    return [index for index, item in enumerate(items) if not is_kill(item)]


def shared_in(items: object) -> dict[str, Any]:
    """The segments that a change list writes, as far as they can be read: its own flags may refer to them."""
    given = (
        [item for item in items if isinstance(item, dict) and item.get("op") == "put_segment"]
        if isinstance(items, list)
        else []
    )
    read = {item["name"]: segments.read(item.get("segment"), "")[0] for item in given if isinstance(item.get("name"), str)}
    return {name: rule for name, rule in read.items() if rule is not None}


def read_operations(
    items: object, check: documents.Check, at: str = "/operations", *, with_kills: bool = False
) -> tuple[list[Operation], list[wire.Fault]]:
    """The operations of a change list as people write it, and everything that is wrong with it.

    `with_kills`: someone else reads its kills, and they are passed over.
    """
    if not isinstance(items, list) or not items:
        return [], [wire.Fault(pointer=at, code="missing", detail="`operations` is a list of at least one operation")]
    if len(items) > documents.OPERATIONS_MAX:
        detail = f"a change has at most {documents.OPERATIONS_MAX} operations, this one has {len(items)}"
        return [], [wire.Fault(pointer=at, code="too_many", detail=detail)]
    operations: list[Operation] = []
    faults: list[wire.Fault] = []
    for index, item in enumerate(items):
        if with_kills and is_kill(item):
            continue
        operation, wrong = _read_operation(item, f"{at}/{index}", check)
        faults.extend(wrong)
        if operation is not None:
            operations.append(operation)
    return operations, faults


def plan(
    operations: Sequence[Operation],
    held: Mapping[str, HeldFlag],
    pointers: Sequence[str],
    evaluators: Mapping[str, Any] | None = None,
) -> tuple[Plan, list[wire.Fault]]:
    """What the operations write over what is held, and their faults; `pointers[i]` is where its flag was written.

    Codes of faults: `unknown_flag`, `key_was_used` (by a flag now archived), `killed`, `twice`, `unknown_segment`, `too_many`.
    """
    made = Plan(puts=[], archives=[], fences=[])
    faults: list[wire.Fault] = []
    seen: set[str] = set()
    for operation, at in zip(operations, pointers, strict=True):
        key = key_of(operation)
        if key in seen:
            faults.append(wire.Fault(pointer=at, code="twice", detail=f"flag `{key}` appears twice in one change"))
        if key is not None:
            seen.add(key)
        match operation:
            case Put(flag=flag):
                faults.extend(_put_faults(flag, held.get(flag.key), at))
                made.puts.append(flag)
                if flag.key not in held or held[flag.key].flag.off_variant != flag.off_variant:
                    made.fences.append((flag.key, flag.off_variant))
            case Archive(key=key):
                faults.extend(_archive_faults(key, held.get(key), at))
                made.archives.append(key)
            case SetBucketing(generation=generation):
                made.bucketing = generation
            case PutSegment(name=name) | DeleteSegment(name=name):
                faults.extend(_segment_faults(operation, made, evaluators or {}, at))
                made.segments[name] = operation.rule if isinstance(operation, PutSegment) else None
    return made, faults


def _read_operation(item: object, at: str, check: documents.Check) -> tuple[Operation | None, list[wire.Fault]]:
    if not isinstance(item, dict):
        return None, [wire.Fault(pointer=at, code="wrong_type", detail="an operation is an object")]
    match item.get("op"):
        case "put_segment" | "delete_segment":
            return _read_segment(item, at)
        case "put":
            faults = documents.unknown_fields(item, {"op": str, "flag": dict}, at)
            flag, wrong = ruleread.read_flag(item.get("flag"), f"{at}/flag", check)
            return (None if flag is None else Put(flag=flag)), faults + wrong
        case "archive":
            faults = documents.unknown_fields(item, {"op": str, "key": str}, at)
            key = item.get("key")
            if not isinstance(key, str) or not documents.is_key(key):
                return None, [*faults, wire.Fault(pointer=f"{at}/key", code="bad_key", detail="`key` names the flag")]
            return Archive(key=key), faults
        case "lift":
            detail = "a lift is no part of a change: only a person lifts, and at once (`rescind lift`)"
            return None, [wire.Fault(pointer=f"{at}/op", code="unknown_operation", detail=detail)]
        case other:
            detail = f"no operation {other!r:.80}: it is one of put, archive, put_segment, delete_segment, kill"
            return None, [wire.Fault(pointer=f"{at}/op", code="unknown_operation", detail=detail)]


def _read_segment(item: dict[str, Any], at: str) -> tuple[Operation | None, list[wire.Fault]]:
    is_put = item["op"] == "put_segment"
    known = ("op", "name", "segment") if is_put else ("op", "name")
    faults = documents.unknown_fields(item, dict.fromkeys(known), at)
    name = item.get("name")
    if not is_put:
        if not isinstance(name, str):
            faults.append(wire.Fault(pointer=f"{at}/name", code="bad_name", detail="`name` names the segment"))
        return (None if faults else DeleteSegment(name=str(name))), faults
    faults += segments.name_faults(name, f"{at}/name")
    rule, wrong = segments.read(item.get("segment"), f"{at}/segment")
    return (None if rule is None else PutSegment(name=str(name), rule=rule)), faults + wrong


def _segment_faults(
    operation: PutSegment | DeleteSegment, made: Plan, evaluators: Mapping[str, Any], at: str
) -> list[wire.Fault]:
    name = operation.name
    if name in made.segments:
        return [wire.Fault(pointer=at, code="twice", detail=f"segment `{name}` appears twice in one change")]
    if isinstance(operation, DeleteSegment):
        detail = f"there is no segment `{name:.128}`"
        return [] if name in evaluators else [wire.Fault(pointer=at, code="unknown_segment", detail=detail)]
    if name not in evaluators and len(evaluators) + len(made.segments) >= segments.SEGMENTS_MAX:
        detail = f"an environment has at most {segments.SEGMENTS_MAX} segments"
        return [wire.Fault(pointer=at, code="too_many", detail=detail)]
    return []


def _put_faults(flag: wire.Flag, held: HeldFlag | None, at: str) -> list[wire.Fault]:
    if held is None:
        return []
    if held.is_archived:
        detail = f"`{flag.key}` was the key of a flag that is archived; a key once used is never given to another"
        return [wire.Fault(pointer=f"{at}/key", code="key_was_used", detail=detail)]
    faults = [fault for kill in held.kills for fault in _overlay_faults(flag, held.flag, kill.off_variant, at)]
    if held.kills and flag.off_variant != held.flag.off_variant:
        detail = "the flag is killed: its off variant stays until the kill is lifted"
        faults.append(wire.Fault(pointer=f"{at}/off_variant", code="killed", detail=detail))
    return list(dict.fromkeys(faults))


def _overlay_faults(flag: wire.Flag, held: wire.Flag, served: str, at: str) -> list[wire.Fault]:
    after: dict[str, Any] = flag.definition.get("variants", {})
    before: dict[str, Any] = held.definition.get("variants", {})
    if served in after and same(after[served], before.get(served)):
        return []
    detail = f"the flag is killed to `{served}`: that variant keeps its value until the kill is lifted"
    pointer = f"{at}/definition/variants{documents.pointer(served)}"
    return [wire.Fault(pointer=pointer, code="killed", detail=detail)]


def same(one: object, other: object) -> bool:
    """Equal as JSON: unlike Python, `true` is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _archive_faults(key: str, held: HeldFlag | None, at: str) -> list[wire.Fault]:
    if held is None or held.is_archived:
        return [wire.Fault(pointer=f"{at}/key", code="unknown_flag", detail=f"there is no flag `{key}`")]
    if held.kills:
        detail = f"flag `{key}` is killed; archived, it would fall back to its callers' defaults: lift the kill first"
        return [wire.Fault(pointer=f"{at}/key", code="killed", detail=detail)]
    return []
