"""Flags and changes: `/v1/environments/{environment}/flags`, `/changes`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Controller, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from rescind import wire

from flagd.core import changes, documents, ruleread
from flagd.errors import Code, refused, unknown_flag
from flagd.http.bodies import AnyRequest, answer, flag_body, read_ending, read_object
from flagd.http.gate import require_any
from flagd.service import FlagService
from runtime.problem import Problem
from runtime.tokens import Principal

READ = ("read", "evaluate")
WRITE = ("admin",)
LIMIT_MAX = 1000

KillOperation = Callable[[str, dict[str, Any], Principal], Awaitable[dict[str, Any]]]
"""Carries out a change list that holds a kill: (environment, the body as it was sent, who asks) to the answer's body."""


class KillOperations:
    """Who carries out change lists that hold a kill: the roof, where it is there."""

    def __init__(self, carry_out: KillOperation | None) -> None:
        self.carry_out = carry_out


class FlagController(Controller):
    """Flags, one by one."""

    path = "/v1/environments/{environment:str}/flags"
    tags = ["flags"]

    @get("/", summary="List flags")
    async def list_flags(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        service: NamedDependency[FlagService],
        principal: NamedDependency[Principal],
        limit: FromQuery[int] = 100,
        after: FromQuery[str] = "",
    ) -> Response[bytes]:
        """Flags in service by key, `?limit=&after=` a page; `next` is the key to go on after."""
        require_any(principal, READ, environment)
        size = max(1, min(limit, LIMIT_MAX))
        views = await service.flags(environment, after.replace("\0", ""), size)
        following = views[-1].stored.flag.key if len(views) == size else None
        return answer(request, {"flags": [flag_body(view) for view in views], "next": following})

    @get("/{key:str}", summary="Get a flag")
    async def get_flag(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        key: FromPath[str],
        service: NamedDependency[FlagService],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """The flag as it was written, with its revision and standing kills."""
        require_any(principal, READ, environment)
        view = await service.flag(environment, flag_key(key))
        return answer(request, flag_body(view), headers={"etag": f'"{view.stored.changed}"'})

    @put("/{key:str}", summary="Put a flag")
    async def put_flag(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        key: FromPath[str],
        service: NamedDependency[FlagService],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """Create or replace a flag: `{"flag": {...}, "reason": "..."}`, its targeting raw or as `rules`. 201 if it is new."""
        require_any(principal, WRITE, environment)
        body = await read_object(request)
        faults = documents.unknown_fields(body, dict.fromkeys(("flag", "reason", "expected_revision", "past_gate")), "")
        reason, wrong = documents.read_reason(body)
        expected, unread = documents.read_revision(body)
        past_gate, unsaid = documents.read_past_gate(body, reason)
        document = body.get("flag")
        if isinstance(document, dict):
            document = {"key": key, **document}
        flag, flaws = ruleread.read_flag(document, "/flag", await service.checker(environment))
        if isinstance(document, dict) and document["key"] != key:
            flaws.append(wire.Fault(pointer="/flag/key", code="bad_key", detail=f"the path says `{key:.255}`"))
        faults = [*faults, *wrong, *unread, *unsaid, *flaws]
        if flag is None or faults:
            raise refused(faults)
        is_new = not await service.has(environment, key)
        await service.apply(
            environment,
            [changes.Put(flag=flag)],
            actor=principal.name,
            reason=reason,
            expected_revision=expected,
            expected_flags=_if_match(request, key),
            pointers=["/flag"],
            past_gate=past_gate,
        )
        view = await service.flag(environment, key)
        return answer(request, flag_body(view), 201 if is_new else 200, {"etag": f'"{view.stored.changed}"'})

    @delete("/{key:str}", status_code=200, summary="Archive a flag")
    async def archive_flag(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        key: FromPath[str],
        service: NamedDependency[FlagService],
        principal: NamedDependency[Principal],
        reason: FromQuery[str | None] = None,
    ) -> Response[bytes]:
        """Take a flag out of service. Its key is never given to another."""
        require_any(principal, WRITE, environment)
        ending = await read_ending(request, reason)
        revision = await service.apply(
            environment,
            [changes.Archive(key=flag_key(key))],
            actor=principal.name,
            reason=ending.reason,
            expected_flags=_if_match(request, key),
        )
        return answer(request, {"revision": str(revision)})


class ChangeController(Controller):
    """Several flags at once, under one revision."""

    path = "/v1/environments/{environment:str}"
    tags = ["flags"]

    @post("/changes", status_code=200, summary="Change flags")
    async def change(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        service: NamedDependency[FlagService],
        kill_operations: NamedDependency[KillOperations],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """All operations under one revision, or none of them."""
        require_any(principal, WRITE, environment)
        body = await read_object(request)
        if changes.holds_kill(body.get("operations")):
            if kill_operations.carry_out is None:
                raise _kill_elsewhere(environment)
            return answer(request, await kill_operations.carry_out(environment, body, principal))
        faults = documents.unknown_fields(body, dict.fromkeys(("operations", "reason", "expected_revision", "past_gate")), "")
        reason, wrong = documents.read_reason(body)
        expected, unread = documents.read_revision(body)
        past_gate, unsaid = documents.read_past_gate(body, reason)
        operations, flaws = changes.read_operations(
            body.get("operations"), await service.checker(environment, body.get("operations"))
        )
        if faults := [*faults, *wrong, *unread, *unsaid, *flaws]:
            raise refused(faults)
        revision = await service.apply(
            environment, operations, actor=principal.name, reason=reason, expected_revision=expected, past_gate=past_gate
        )
        return answer(request, {"revision": str(revision)})


def flag_key(key: str) -> str:
    """The key, if a flag can have it. Raises `Problem` 404."""
    if not documents.is_key(key):
        raise unknown_flag(key, ())
    return key


def _if_match(request: AnyRequest, key: str) -> dict[str, wire.Revision] | None:
    """The revision that `If-Match` asks of the flag. A tag that is no revision matches nothing."""
    asked = request.headers.get("if-match", "").strip().removeprefix("W/").strip('"')
    if asked in ("", "*"):
        return None
    try:
        return {key: wire.Revision.parse(asked)}
    except ValueError:
        return {key: wire.Revision()}


def _kill_elsewhere(environment: str) -> Problem:
    return Problem(
        422,
        Code.KILL_ELSEWHERE,
        "A kill has its own endpoint",
        "This server carries out no kills inside change lists.",
        next_step=f"POST /v1/environments/{environment}/flags/<key>/kill for the kill; post the other operations without it.",
    )
