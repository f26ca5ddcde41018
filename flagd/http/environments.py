"""Environments: `/v1/environments`, and the generation of bucketing that each evaluates with."""

from __future__ import annotations

import re

from litestar import Controller, Response, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath
from rescind import wire
from rescind.evaluation import GENERATIONS

from flagd.core import changes, documents
from flagd.errors import refused
from flagd.http.bodies import AnyRequest, answer, read_object
from flagd.http.flags import READ, WRITE
from flagd.http.gate import require_any
from flagd.service import FlagService
from runtime.tokens import Principal

NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


class EnvironmentController(Controller):
    """Environments: isolated flag sets with their own revisions."""

    path = "/v1/environments"
    tags = ["environments"]

    @get("/", summary="List environments")
    async def list_environments(
        self, request: AnyRequest, service: NamedDependency[FlagService], principal: NamedDependency[Principal]
    ) -> Response[bytes]:
        """Those that the token may see, with the revision each has reached and its generation of bucketing."""
        seen = [
            {
                "name": environment.name,
                "revision": str(environment.revision),
                "bucketing": environment.bucketing,
                "created_at": environment.created_at,
            }
            for environment in await service.environments()
            if any(principal.allows(scope, environment.name) for scope in READ)
        ]
        return answer(request, {"environments": seen})

    @put("/{environment:str}", summary="Create an environment")
    async def create_environment(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        service: NamedDependency[FlagService],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """201 if it is new; one that is there stays as it is."""
        require_any(principal, WRITE, environment)
        body = await read_object(request)
        reason, faults = documents.read_reason(body)
        faults.extend(documents.unknown_fields(body, {"reason": str}, ""))
        if not NAME.fullmatch(environment):
            detail = "an environment's name has lower-case letters, digits and hyphens, a letter first, 63 at most"
            faults.append(wire.Fault(pointer="/environment", code="bad_name", detail=detail))
        if faults:
            raise refused(faults)
        is_new = await service.create_environment(environment, actor=principal.name, reason=reason)
        return answer(request, {"name": environment}, 201 if is_new else 200)

    @put("/{environment:str}/bucketing", summary="Set the generation of bucketing")
    async def set_bucketing(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        service: NamedDependency[FlagService],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """How `fractional` hashes from now on, `{"generation": "v2" | "v3", "reason": "..."}`: subjects move between shares.

        A revision like any other, for every flag at once. v3, the default, is what present clients of flagd do.
        """
        require_any(principal, WRITE, environment)
        body = await read_object(request)
        faults = documents.unknown_fields(body, dict.fromkeys(("generation", "reason", "expected_revision", "past_gate")), "")
        reason, wrong = documents.read_reason(body)
        expected, unread = documents.read_revision(body)
        past_gate, unsaid = documents.read_past_gate(body, reason)
        generation = body.get("generation")
        if generation not in GENERATIONS:
            detail = f"the generation is one of {', '.join(GENERATIONS)}"
            faults.append(wire.Fault(pointer="/generation", code="unknown_generation", detail=detail))
        if faults := [*faults, *wrong, *unread, *unsaid]:
            raise refused(faults)
        revision = await service.apply(
            environment,
            [changes.SetBucketing(generation=str(generation))],
            actor=principal.name,
            reason=reason,
            expected_revision=expected,
            pointers=["/generation"],
            past_gate=past_gate,
        )
        return answer(request, {"bucketing": generation, "revision": str(revision)})
