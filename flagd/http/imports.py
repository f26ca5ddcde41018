"""flagd documents in and out: `/v1/environments/{environment}/import`, `/export`."""

from __future__ import annotations

import asyncio

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from flagd.core import documents, flagset
from flagd.errors import refused
from flagd.http.bodies import AnyRequest, answer, read_object, reason_of
from flagd.http.flags import READ, WRITE
from flagd.http.gate import require_any
from flagd.imports import Imports
from runtime.tokens import Principal

IMPORT_BYTES_MAX = 32 * 1024 * 1024
"""10,000 flags of 3 KB; what has more is imported in parts."""


class ImportController(Controller):
    """flagd documents in and out."""

    path = "/v1/environments/{environment:str}"
    tags = ["flags"]

    @post("/import", status_code=200, summary="Import a flagd document", request_max_body_size=IMPORT_BYTES_MAX)
    async def import_document(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        imports: NamedDependency[Imports],
        principal: NamedDependency[Principal],
        reason: FromQuery[str | None] = None,
        dry_run: FromQuery[bool] = False,
        expected_revision: FromQuery[str | None] = None,
        past_gate: FromQuery[bool] = False,
    ) -> Response[bytes]:
        """Every flag of a flagd document under one revision; flags it does not name stay as they are.

        `?dry_run=true` changes nothing and answers the difference, with the `revision` for which it is true: an import that
        then names it as `?expected_revision=` applies exactly that, or nothing. `?past_gate=true`, with a reason, turns on
        what live instances have not declared.
        """
        require_any(principal, WRITE, environment)
        document = await read_object(request)
        expected, unread = documents.read_revision({"expected_revision": expected_revision})
        read, faults = await asyncio.to_thread(flagset.read, document)
        _, unsaid = documents.read_past_gate({"past_gate": past_gate and not dry_run}, reason)
        if read is None or unread or unsaid:
            raise refused([*unread, *unsaid, *faults])
        if dry_run:
            return answer(request, await imports.difference(environment, read, expected, past_gate=past_gate))
        revision = await imports.apply(
            environment, read, actor=principal.name, reason=reason_of(reason), expected=expected, past_gate=past_gate
        )
        return answer(request, {"revision": str(revision), "flags": len(read.flags)})

    @get("/export", summary="Export a flagd document")
    async def export_document(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        imports: NamedDependency[Imports],
        principal: NamedDependency[Principal],
        effective: FromQuery[bool] = False,
    ) -> Response[bytes]:
        """The flags in flagd's own format: as they were written, prerequisites as rules, or
        (`?effective=true`) as they are served now, kills too."""
        require_any(principal, READ, environment)
        return answer(request, await imports.export(environment, effective=effective))
