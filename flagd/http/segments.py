"""Segments: `/v1/environments/{environment}/segments`. Each write is a revision like any other."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Response, delete, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from flagd.core import changes, documents, segments
from flagd.errors import refused, unknown_segment
from flagd.http.bodies import AnyRequest, answer, read_ending, read_object
from flagd.http.flags import READ, WRITE
from flagd.http.gate import require_any
from flagd.service import FlagService, Segments
from runtime.tokens import Principal


class SegmentController(Controller):
    """Rules that flags share."""

    path = "/v1/environments/{environment:str}/segments"
    tags = ["flags"]

    @get("/", summary="List segments")
    async def list_segments(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        service: NamedDependency[FlagService],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """Every segment by name, with the flags that refer to it."""
        require_any(principal, READ, environment)
        held = await service.segments(environment)
        bodies = [_body(name, held) for name in sorted(held.rules)]
        return answer(request, {"segments": bodies, "revision": str(held.revision)})

    @get("/{name:str}", summary="Get a segment")
    async def get_segment(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        name: FromPath[str],
        service: NamedDependency[FlagService],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """Its rule, as conditions too (null where they cannot say it), and the flags that refer to it."""
        require_any(principal, READ, environment)
        held = await service.segments(environment)
        if name not in held.rules:
            raise unknown_segment(name, held.rules)
        return answer(request, {**_body(name, held), "revision": str(held.revision)})

    @put("/{name:str}", summary="Put a segment")
    async def put_segment(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        name: FromPath[str],
        service: NamedDependency[FlagService],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """Create or replace a segment: `{"segment": {"when": [...]} | {"rule": {...}}, "reason": "..."}`. 201 if it is new."""
        require_any(principal, WRITE, environment)
        body = await read_object(request)
        faults = documents.unknown_fields(body, dict.fromkeys(("segment", "reason", "expected_revision", "past_gate")), "")
        reason, wrong = documents.read_reason(body)
        expected, unread = documents.read_revision(body)
        past_gate, unsaid = documents.read_past_gate(body, reason)
        rule, flaws = segments.read(body.get("segment"), "/segment")
        faults = [*faults, *segments.name_faults(name, "/name"), *wrong, *unread, *unsaid, *flaws]
        if rule is None or faults:
            raise refused(faults)
        is_new = name not in (await service.segments(environment)).rules
        await service.apply(
            environment,
            [changes.PutSegment(name=name, rule=rule)],
            actor=principal.name,
            reason=reason,
            expected_revision=expected,
            pointers=["/segment"],
            past_gate=past_gate,
        )
        held = await service.segments(environment)
        return answer(request, {**_body(name, held), "revision": str(held.revision)}, 201 if is_new else 200)

    @delete("/{name:str}", status_code=200, summary="Delete a segment")
    async def delete_segment(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        name: FromPath[str],
        service: NamedDependency[FlagService],
        principal: NamedDependency[Principal],
        reason: FromQuery[str | None] = None,
    ) -> Response[bytes]:
        """Take a segment away. Refused while a flag refers to it: every one is named."""
        require_any(principal, WRITE, environment)
        ending = await read_ending(request, reason, revised=True)
        held = await service.segments(environment)
        if name not in held.rules:
            raise unknown_segment(name, held.rules)
        revision = await service.apply(
            environment,
            [changes.DeleteSegment(name=name)],
            actor=principal.name,
            reason=ending.reason,
            expected_revision=ending.expected_revision,
            pointers=["/name"],
        )
        return answer(request, {"revision": str(revision)})


def _body(name: str, held: Segments) -> dict[str, Any]:
    rule = held.rules.get(name)
    return {"name": name, "when": segments.when_of(rule), "rule": rule, "flags": held.flags.get(name, [])}
