"""A change inside a transaction: judged whole against what is held, then written under one revision (P1, P4, P20).

Nothing here commits or tells a replica: who began the transaction does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from rescind import wire

from flagd import store, surroundings
from flagd.core import changes, flagset
from flagd.errors import flag_changed, in_recovery, refused, revision_mismatch, unknown_environment, unknown_flag
from runtime import audit
from runtime.postgres import Connection

OnCreated = Callable[[Connection, str, Sequence[tuple[str, str]]], Awaitable[None]]
"""Called in the change's own transaction with each (key, off variant) that is new."""

Objections = Callable[[Mapping[str, changes.HeldFlag], Mapping[str, Any]], Sequence[wire.Fault]]
"""What the caller has against a change, seen the flags and the segments as they are held while it is written."""

AUDIT_ENTRIES_MAX = 50


class Judged(Struct, frozen=True, kw_only=True):
    """A change that may be written, over what this transaction has locked."""

    locked: store.Locked
    held: Mapping[str, changes.HeldFlag]
    plan: changes.Plan
    evaluators: dict[str, Any]
    metadata: dict[str, Any]
    """What stands beside the flags after the change."""


async def judge(
    connection: Connection,
    environment: str,
    operations: Sequence[changes.Operation],
    *,
    expected_revision: wire.Revision | None = None,
    expected_flags: Mapping[str, wire.Revision] | None = None,
    pointers: Sequence[str] | None = None,
    seen: wire.Revision | None = None,
    through_recovery: bool = False,
    document: flagset.FlagSet | None = None,
    objections: Objections | None = None,
    checked: dict[str, Any] | None = None,
) -> Judged:
    """What the operations would write, with the environment and the flags locked. Raises its `Problem`; writes nothing.

    `through_recovery`: nothing but kills comes beside, which an environment in recovery takes.
    `checked` are the segments that the flags were checked with: where they are others by now, they are checked again.
    """
    locked = await _lock(connection, environment, expected_revision, seen, through_recovery=through_recovery)
    held = await store.lock_flags(connection, environment, changes.keys_of(operations))
    for key, expected in (expected_flags or {}).items():
        if key not in held or held[key].changed != expected:
            raise flag_changed(key, expected, held[key].changed if key in held else None)
    pointers = pointers or changes.pointers_of(operations)
    kept = operations if document is None else flagset.keep(operations, held)
    plan, faults = changes.plan(kept, held, pointers, locked.evaluators)
    faults += [] if objections is None else objections(held, locked.evaluators)
    evaluators, metadata = _beside(plan, locked, document)
    places = surroundings.places_of(operations, pointers)
    faults += await surroundings.faults(connection, environment, locked, plan, places, evaluators, checked)
    await _refuse(connection, environment, operations, faults if document is None else flagset.relocated(faults))
    return Judged(
        locked=locked,
        held=held,
        plan=plan if document is None else flagset.moving(plan, held),
        evaluators=evaluators,
        metadata=metadata,
    )


async def write(
    connection: Connection,
    environment: str,
    judged: Judged,
    *,
    actor: str,
    reason: str | None,
    beside: Sequence[dict[str, Any]],
    because: Mapping[str, Any],
    on_created: OnCreated,
) -> wire.Revision:
    """Write what was judged in this transaction. `beside` are operations that the caller carries out itself, `because` is what
    else the audit entries say."""
    plan, locked = judged.plan, judged.locked
    revision = await store.advance(connection, environment)
    await store.write_plan(connection, environment, revision, plan)
    await surroundings.index(connection, environment, plan)
    if (judged.evaluators, judged.metadata) != (locked.evaluators, locked.metadata):
        await store.put_document(connection, environment, judged.evaluators, judged.metadata)
    if plan.fences:
        await on_created(connection, environment, plan.fences)
    recorded = [*plan.operations(), *beside]
    keys = [*plan.keys(), *(str(operation["key"]) for operation in beside)]
    await store.record_revision(connection, environment, revision, actor=actor, reason=reason, operations=recorded, keys=keys)
    await _note(connection, environment, plan, revision, actor=actor, reason=reason, because=because)
    return revision


async def expect_environment(connection: Connection, environment: str) -> None:
    """Raise `Problem` 404 where there is no such environment."""
    heads = await store.heads(connection)
    if environment not in heads:
        raise unknown_environment(environment, heads)


async def _lock(
    connection: Connection,
    environment: str,
    expected: wire.Revision | None,
    seen: wire.Revision | None,
    *,
    through_recovery: bool,
) -> store.Locked:
    locked = await store.lock_environment(connection, environment)
    if locked is None:
        raise unknown_environment(environment, await store.heads(connection))
    newest = max(seen or locked.told, locked.told)
    if newest > locked.revision or (locked.is_recovering and not through_recovery):
        raise in_recovery(environment, locked.revision, newest)
    if expected is not None and expected != locked.revision:
        raise revision_mismatch(expected, locked.revision)
    return locked


def _beside(
    plan: changes.Plan, locked: store.Locked, document: flagset.FlagSet | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    if document is None:
        return plan.evaluators(locked.evaluators), locked.metadata
    return flagset.beside(document, locked.evaluators, locked.metadata)


async def _refuse(
    connection: Connection,
    environment: str,
    operations: Sequence[changes.Operation],
    faults: Sequence[wire.Fault],
) -> None:
    if not faults:
        return
    match operations:
        case [changes.Archive(key=key)] if faults[0].code == "unknown_flag":
            raise unknown_flag(key, await store.flag_keys(connection, environment))
    raise refused(faults)


async def _note(
    connection: Connection,
    environment: str,
    plan: changes.Plan,
    revision: wire.Revision,
    *,
    actor: str,
    reason: str | None,
    because: Mapping[str, Any],
) -> None:
    """One entry per operation; one for all where there are many, for a kill waits while this transaction runs."""
    entries: list[tuple[str, str, dict[str, Any]]] = plan.acts(environment)
    if len(entries) > AUDIT_ENTRIES_MAX:
        entries = [("flags.change", environment, {"operations": plan.operations()})]
    for action, about, detail in entries:
        await audit.append(
            connection,
            actor=actor,
            action=action,
            environment=environment,
            object=about,
            reason=reason,
            detail={"revision": str(revision), **detail, **because},
        )
