"""Stepwise rollouts: `/v1/environments/{environment}/flags/{key}/rollout`."""

from __future__ import annotations

from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from rescind import wire

from flagd.core import documents
from flagd.core.rollout import read_steps
from flagd.errors import refused, unknown_flag
from flagd.http.bodies import AnyRequest, answer, read_ending, read_object, rollout_body
from flagd.http.flags import READ, WRITE
from flagd.http.gate import require_any
from flagd.rollouts import Rollouts
from runtime.tokens import Principal


class RolloutController(Controller):
    """A variant on its way to more and more subjects."""

    path = "/v1/environments/{environment:str}/flags/{key:str}/rollout"
    tags = ["flags"]

    @post("/", status_code=201, summary="Roll a variant out in steps")
    async def start(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        key: FromPath[str],
        rollouts: NamedDependency[Rollouts],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """`{"variant": "on", "steps": [1, 10, 50, 100], "every_seconds": 3600, "reason": "..."}`: the first step at once.

        Every step is a revision. It stops where it is when the flag is killed, archived or written by anyone else.
        """
        require_any(principal, WRITE, environment)
        body = await read_object(request)
        faults = documents.unknown_fields(body, dict.fromkeys(("variant", "steps", "every_seconds", "reason")), "")
        reason, wrong = documents.read_reason(body)
        steps, every_seconds, unread = read_steps(body.get("steps"), body.get("every_seconds"))
        variant = body.get("variant")
        if not isinstance(variant, str) or not variant:
            faults.append(wire.Fault(pointer="/variant", code="missing", detail="`variant` is what is rolled out"))
        if faults := [*faults, *wrong, *unread]:
            raise refused(faults)
        begun = await rollouts.start(
            environment, _key(key), str(variant), steps, every_seconds, principal=principal, reason=reason
        )
        return answer(request, rollout_body(begun), 201)

    @get("/", summary="Get a flag's rollout")
    async def one(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        key: FromPath[str],
        rollouts: NamedDependency[Rollouts],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """The last one: how far it has come, and why it went no further."""
        require_any(principal, READ, environment)
        return answer(request, rollout_body(await rollouts.get(environment, _key(key))))

    @delete("/", status_code=200, summary="Stop a rollout")
    async def stop(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        key: FromPath[str],
        rollouts: NamedDependency[Rollouts],
        principal: NamedDependency[Principal],
        reason: FromQuery[str | None] = None,
    ) -> Response[bytes]:
        """No further step. The flag stays as it is: to take the variant back, kill the flag or write it."""
        require_any(principal, WRITE, environment)
        ending = await read_ending(request, reason)
        stopped = await rollouts.stop(environment, _key(key), actor=principal.name, reason=ending.reason)
        return answer(request, rollout_body(stopped))


def _key(key: str) -> str:
    if not documents.is_key(key):
        raise unknown_flag(key, ())
    return key
