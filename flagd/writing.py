"""A judged change, written inside a transaction under one revision (P1, P4, P20).

Nothing here commits or tells a replica: who began the transaction does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from rescind import wire

from flagd import declarations, store, surroundings
from flagd.core import changes
from flagd.errors import unknown_environment
from flagd.judging import Judged
from runtime import audit
from runtime.postgres import Connection

OnCreated = Callable[[Connection, str, Sequence[tuple[str, str]]], Awaitable[None]]
"""Called in the change's own transaction with each (key, off variant) that is new."""

OnProceeding = Callable[[Connection, str, Sequence[str]], Awaitable[None]]
"""Called in it with the keys of those flags that declare `on_unreachable: proceed`."""

AUDIT_ENTRIES_MAX = 50


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
    on_proceeding: OnProceeding | None = None,
) -> wire.Revision:
    """Write what was judged in this transaction. `beside` are operations that the caller carries out itself, `because` is what
    else the audit entries say."""
    plan, head = judged.plan, judged.head
    revision = await store.advance(connection, environment)
    await store.write_plan(connection, environment, revision, plan)
    await surroundings.index(connection, environment, plan)
    if (judged.evaluators, judged.metadata) != (head.evaluators, head.metadata):
        await store.put_document(connection, environment, judged.evaluators, judged.metadata)
    if plan.fences:
        await on_created(connection, environment, plan.fences)
    if plan.proceeding and on_proceeding is not None:
        await on_proceeding(connection, environment, plan.proceeding)
    recorded = [*plan.operations(), *beside]
    keys = [*plan.keys(), *(str(operation["key"]) for operation in beside)]
    await store.record_revision(connection, environment, revision, actor=actor, reason=reason, operations=recorded, keys=keys)
    await _note(connection, environment, plan, revision, actor=actor, reason=reason, because=because)
    await declarations.note(connection, environment, judged.lacks, actor=actor, reason=reason)
    return revision


async def expect_environment(connection: Connection, environment: str) -> None:
    """Raise `Problem` 404 where there is no such environment."""
    heads = await store.heads(connection)
    if environment not in heads:
        raise unknown_environment(environment, heads)


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
