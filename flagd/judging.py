"""A change, judged whole against what is held before it takes the environment's row, which a kill takes too (P1, P4, P5, P19).

Whoever edits an environment takes turns; kills and lifts do not wait for a turn. The change is judged against what is read at
a revision, without a lock and in a thread. Then the row is taken: where the environment is still at that revision, everything
that was read is as it was, for whatever moves takes a revision. Where a kill came in between, it is judged again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from rescind import wire

from flagd import declarations, store, surroundings
from flagd.core import around, changes, flagset, turning
from flagd.errors import flag_changed, in_recovery, overtaken, refused, revision_mismatch, unknown_environment, unknown_flag
from runtime.postgres import Connection, savepoint

JUDGEMENTS_MAX = 5
"""Of one change: so many kills and lifts in a row, each while it was judged, and it is refused (409) rather than held against
the next kill."""

Objections = Callable[[Mapping[str, changes.HeldFlag], Mapping[str, Any]], Sequence[wire.Fault]]
"""What the caller has against a change, seen the flags and the segments as they are held while it is written. Called in a
thread, once per judgement."""


class Asked(Struct, frozen=True, kw_only=True):
    """A change, and what it was made for."""

    environment: str
    operations: Sequence[changes.Operation]
    pointers: Sequence[str]
    expected_revision: wire.Revision | None = None
    expected_flags: Mapping[str, wire.Revision] = {}
    seen: wire.Revision | None = None
    through_recovery: bool = False
    """Nothing but kills comes beside, which an environment in recovery takes."""
    document: flagset.FlagSet | None = None
    objections: Objections | None = None
    checked: dict[str, Any] | None = None
    """The segments that the flags were checked with: where they are others by now, they are checked again."""
    past_gate: bool = False
    """Flags are turned on although live instances of their services have not declared them."""


class Judged(Struct, frozen=True, kw_only=True):
    """A change that may be written, over what is held. The environment's row is this transaction's."""

    head: store.Head
    held: Mapping[str, changes.HeldFlag]
    plan: changes.Plan
    evaluators: dict[str, Any]
    metadata: dict[str, Any]
    """What stands beside the flags after the change."""
    turned: Sequence[turning.Turned] = ()
    """The flags that require declarations and are turned on."""
    lacks: Sequence[turning.Lack] = ()
    """What their declarations lack, where the change goes past the gate."""


class _MovedError(Exception):
    """The environment is not at the revision at which it was read."""


async def judge(connection: Connection, asked: Asked) -> Judged:
    """What the operations would write, with the environment's row taken. Raises its `Problem`; writes nothing."""
    if asked.operations:
        await store.take_turn(connection, asked.environment)
    for _ in range(JUDGEMENTS_MAX):
        head = await store.environment_document(connection, asked.environment)
        if head is None:
            raise unknown_environment(asked.environment, await store.heads(connection))
        _expect(asked, head)
        judged, faults = await _judge(connection, asked, head)
        if await _lock(connection, asked, head.revision):
            _expect_flags(asked, judged.held)
            lacks = await declarations.lacking(connection, asked.environment, judged.turned) if judged.turned else []
            gate = [] if asked.past_gate else turning.faults(lacks, around.places_of(asked.operations, asked.pointers))
            await _refuse(connection, asked, [*faults, *gate])
            return msgspec.structs.replace(judged, lacks=lacks)
    raise overtaken(asked.environment)


async def _judge(connection: Connection, asked: Asked, head: store.Head) -> tuple[Judged, Sequence[wire.Fault]]:
    """Reads at this revision, if it stays so, and decides in a thread."""
    held = await store.held_flags(connection, asked.environment, changes.keys_of(asked.operations))
    judged, faults = await asyncio.to_thread(_plan, asked, head, held)
    is_shared_moved = judged.evaluators != head.evaluators
    near = await surroundings.look(connection, asked.environment, head, judged.plan, is_shared_moved=is_shared_moved)
    kills = None
    if _is_gated(judged, near):
        kills = declarations.kills_of(await store.standing_kills(connection, asked.environment))
    return await asyncio.to_thread(_verdict, asked, judged, faults, near, kills)


def _plan(asked: Asked, head: store.Head, held: Mapping[str, changes.HeldFlag]) -> tuple[Judged, list[wire.Fault]]:
    document = asked.document
    kept = asked.operations if document is None else flagset.keep(asked.operations, held)
    plan, faults = changes.plan(kept, held, asked.pointers, head.evaluators)
    faults += [] if asked.objections is None else asked.objections(held, head.evaluators)
    evaluators, metadata = (
        (plan.evaluators(head.evaluators), head.metadata)
        if document is None
        else flagset.beside(document, head.evaluators, head.metadata)
    )
    return Judged(head=head, held=held, plan=plan, evaluators=evaluators, metadata=metadata), faults


def _verdict(
    asked: Asked,
    judged: Judged,
    faults: Sequence[wire.Fault],
    near: around.Around,
    kills: Mapping[str, Sequence[wire.Kill]] | None,
) -> tuple[Judged, Sequence[wire.Fault]]:
    head, plan = judged.head, judged.plan
    found = around.faults(
        near, plan, around.places_of(asked.operations, asked.pointers), before=head.evaluators, after=judged.evaluators,
        checked=asked.checked, bucketing=plan.bucketing or head.bucketing,
    )  # fmt: skip
    if kills is not None:
        judged = msgspec.structs.replace(judged, turned=turning.turned_on(*_settings(judged, near, kills)))
    if asked.document is None:
        return judged, [*faults, *found]
    moving = flagset.moving(plan, judged.held)
    written = msgspec.structs.replace(judged, plan=moving)
    return written, flagset.relocated([*faults, *found])


def _is_gated(judged: Judged, near: around.Around) -> bool:
    """Whether any flag around the change requires declarations: nobody else pays for the gate."""
    before = {key: one.flag for key, one in judged.held.items()}
    after = {**near.flags(), **{flag.key: flag for flag in judged.plan.puts}}
    return any(turning.requires(key, before, after) for key in after)


def _settings(
    judged: Judged, near: around.Around, kills: Mapping[str, Sequence[wire.Kill]]
) -> tuple[turning.Setting, turning.Setting]:
    """What is evaluated before the change, and after it."""
    head, plan, beside = judged.head, judged.plan, near.flags()
    held = {key: one.flag for key, one in judged.held.items() if not one.is_archived}
    puts = {flag.key: flag for flag in plan.puts}
    unmoved = {key: flag for key, flag in beside.items() if key not in puts and key not in plan.archives}
    bucketing = plan.bucketing or head.bucketing
    return (
        turning.Setting(flags={**unmoved, **held}, kills=kills, evaluators=head.evaluators, bucketing=head.bucketing),
        turning.Setting(flags={**unmoved, **puts}, kills=kills, evaluators=judged.evaluators, bucketing=bucketing),
    )


async def _lock(connection: Connection, asked: Asked, revision: wire.Revision) -> bool:
    """Take the environment's row if it is at that revision; let go of it otherwise."""
    try:
        async with savepoint(connection):
            held = await store.lock_environment(connection, asked.environment)
            assert held is not None, "an environment is never deleted"
            if held.revision != revision:
                raise _MovedError
    except _MovedError:
        return False
    _expect(asked, held)
    return True


def _expect(asked: Asked, head: store.Head) -> None:
    newest = max(asked.seen or head.told, head.told)
    if newest > head.revision or (head.is_recovering and not asked.through_recovery):
        raise in_recovery(asked.environment, head.revision, newest)
    if asked.expected_revision is not None and asked.expected_revision != head.revision:
        raise revision_mismatch(asked.expected_revision, head.revision)


def _expect_flags(asked: Asked, held: Mapping[str, changes.HeldFlag]) -> None:
    for key, expected in asked.expected_flags.items():
        if key not in held or held[key].changed != expected:
            raise flag_changed(key, expected, held[key].changed if key in held else None)


async def _refuse(connection: Connection, asked: Asked, faults: Sequence[wire.Fault]) -> None:
    if not faults:
        return
    match asked.operations:
        case [changes.Archive(key=key)] if faults[0].code == "unknown_flag":
            raise unknown_flag(key, await store.flag_keys(connection, asked.environment))
    raise refused(faults)
