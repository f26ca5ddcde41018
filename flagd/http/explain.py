"""`POST /v1/environments/{environment}/flags/{key}/explain`: which rule decides a flag for a context, and why."""

from __future__ import annotations

import asyncio

from litestar import Controller, Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from rescind import wire

from flagd.core import documents
from flagd.errors import refused, unknown_flag
from flagd.http.bodies import AnyRequest, answer, read_object
from flagd.http.flags import READ
from flagd.http.gate import require_any
from flagd.replica import Replicas
from runtime.tokens import Principal


class ExplainController(Controller):
    """Explanations, from the snapshot that evaluations are answered from."""

    path = "/v1/environments/{environment:str}/flags/{key:str}/explain"
    tags = ["flags"]

    @post("/", status_code=200, summary="Explain a flag's answer")
    async def explain(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        key: FromPath[str],
        replicas: NamedDependency[Replicas],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """The answer for `{"context": {...}}`, the rule it comes from, and what was found on the way. Nothing is kept of it."""
        require_any(principal, READ, environment)
        body = await read_object(request, is_kept=False)
        context = body.get("context", {})
        faults = documents.unknown_fields(body, dict.fromkeys(("context",)), "")
        if not isinstance(context, dict):
            faults.append(wire.Fault(pointer="/context", code="wrong_type", detail="an evaluation context is an object"))
        if faults:
            raise refused(faults)
        replica = await replicas.get(environment)
        if key not in replica.snapshot.flags:
            raise unknown_flag(key, replica.snapshot.flags)
        return answer(request, await asyncio.to_thread(replica.evaluator.explain, key, context))
