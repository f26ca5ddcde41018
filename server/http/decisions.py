"""`POST /v1/rollbacks/{id}/{pause|resume|cancel|retry|skip|acknowledge}`: what named persons decide (P16, P17, P20)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from litestar import Controller, Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Meta, Struct

from flagd.http.bodies import AnyRequest, answer
from runtime.postgres import Postgres
from runtime.principal import Principal
from runtime.problem import Problem, suggest
from sagas.decisions import TARGETS_MAX, Decision, Decisions
from server.http.asking import find, read
from server.rollbacks.record import QUERIES
from server.rollbacks.requests import Reason
from server.rollbacks.watching import Watching

SCOPE = "compensate"
VERBS = ("pause", "resume", "cancel", "retry", "skip", "acknowledge")


InstanceName = Annotated[str, Meta(min_length=1, max_length=256)]


class DecisionRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body. `effects`: ids of effects (or of compensations) that `retry`, `skip` and `acknowledge` are about."""

    reason: Reason
    effects: Annotated[list[UUID], Meta(min_length=1, max_length=TARGETS_MAX)] | None = None
    instances: Annotated[list[InstanceName], Meta(min_length=1, max_length=TARGETS_MAX)] | None = None
    """Of `skip`: instances whose records are lost, and waited for no longer."""


class DecisionAnswer(Struct, frozen=True, kw_only=True):
    """What a decision changed. `remaining`: how many of the waiting effects a `retry` did not reach; null for other verbs.

    `can_no_longer_act_at`, of a `retry`: from then on no attempt before it does anything any more; null where there was none.
    """

    rollback_id: UUID
    verb: str
    changed: int
    remaining: int | None
    can_no_longer_act_at: datetime | None
    state: str
    """The rollback's, as it stood before."""


class DecisionController(Controller):
    """Decisions on rollbacks. Repeating one changes nothing."""

    path = "/v1/rollbacks/{rollback:str}"
    tags = ["rollbacks"]

    @post("/{verb:str}", status_code=200, summary="Decide on a rollback")
    async def decide(
        self,
        request: AnyRequest,
        rollback: FromPath[str],
        verb: FromPath[str],
        watching: NamedDependency[Watching],
        decisions: NamedDependency[Decisions],
        pg: NamedDependency[Postgres],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """`changed` is the number of effects, or 1 for the rollback as a whole; 0 where it stood already.

        One `retry` reaches so many effects: `remaining` still wait for a person, and it is to be repeated for them.
        """
        found = await find(watching, rollback, principal)
        principal.require(SCOPE, found.environment)
        asked = await read(request, DecisionRequest)
        before, ends_at = await waiting(pg, UUID(found.id), asked.effects) if verb == "retry" else (None, None)
        taken = await carry_out(decisions, verb, UUID(found.id), asked, principal.name)
        left = None if before is None else max(0, before - taken.changed)
        return answer(
            request,
            DecisionAnswer(
                rollback_id=taken.rollback_id,
                verb=verb,
                changed=taken.changed,
                remaining=left,
                can_no_longer_act_at=ends_at,
                state=found.state,
            ),
        )


async def carry_out(decisions: Decisions, verb: str, rollback_id: UUID, asked: DecisionRequest, actor: str) -> Decision:
    """Take one decision. Raises `Problem` 404 for a verb that there is not, 422 for `skip` without effects."""
    if asked.instances is not None:
        if verb != "skip" or asked.effects is not None:
            raise refused("/instances", "`skip` alone takes instances, and then no effects")
        return await decisions.write_off(rollback_id, asked.instances, actor=actor, reason=asked.reason)
    match verb:
        case "pause" | "resume" | "cancel":
            if asked.effects is not None:
                raise refused("/effects", f"`{verb}` is about the whole rollback; `retry` and `skip` take effects")
            whole = {"pause": decisions.pause, "resume": decisions.resume, "cancel": decisions.cancel}
            return await whole[verb](rollback_id, actor=actor, reason=asked.reason)
        case "skip":
            if asked.effects is None:
                raise refused("/effects", "`skip` names its effects, or instances; `cancel` skips the rest")
            return await decisions.skip(rollback_id, asked.effects, actor=actor, reason=asked.reason)
        case "retry":
            return await decisions.retry(rollback_id, asked.effects, actor=actor, reason=asked.reason)
        case "acknowledge":
            return await decisions.acknowledge(rollback_id, asked.effects, actor=actor, reason=asked.reason)
        case _:
            raise Problem(
                404, "not_found", "Not found", f"There is no decision {verb[:40]!r}.", suggestion=suggest(verb, VERBS)
            )


async def waiting(pg: Postgres, rollback_id: UUID, named: list[UUID] | None) -> tuple[int, datetime | None]:
    """How many effects of the rollback wait for a person, and when the attempts of those named end at the latest."""
    async with pg.connection() as connection:
        number = int(await connection.fetchval(QUERIES.waiting, rollback_id))
        return number, await connection.fetchval(QUERIES.can_no_longer_act_at, rollback_id, named)


def refused(pointer: str, detail: str) -> Problem:
    """422 with its place."""
    return Problem(
        422, "invalid", "The document has faults", detail, [{"pointer": pointer, "code": "invalid", "detail": detail}]
    )
