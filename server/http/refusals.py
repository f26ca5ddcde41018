"""Refused attempts stand in the audit log too (P20): every write that was answered 403, whichever room refused it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from runtime import audit
from runtime.errors import RuntimeFault
from runtime.postgres import Postgres
from runtime.principal import bearer
from runtime.problem import Problem
from runtime.telemetry import counter
from runtime.verifier import Verifier

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
WRITING_MAX = 50
PATH_LENGTH_MAX = 512
STOP_SECONDS = 5.0

log = logging.getLogger("rescind.refusals")
unwritten = counter("rescind.audit.refusals_not_written")


class RefusalMiddleware:
    """Wraps an ASGI application; the refusal is answered first and written then. A flood of them is counted, not kept."""

    def __init__(self, app: App, pg: Postgres, verifier: Verifier) -> None:
        self._app = app
        self._pg = pg
        self._verifier = verifier
        self._writing: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in WRITES:
            await self._app(scope, receive, send)
            return
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self._app(scope, receive, noting)
        if status == 403:
            self._write(scope)

    async def stop(self) -> None:
        """Finish what is being written, within `STOP_SECONDS`; what is not written then is counted."""
        if not self._writing:
            return
        _, late = await asyncio.wait(self._writing, timeout=STOP_SECONDS)
        for task in late:
            task.cancel()
        unwritten.add(len(late))

    def _write(self, scope: Scope) -> None:
        if len(self._writing) >= WRITING_MAX:
            unwritten.add(1)
            return
        task = asyncio.create_task(self._append(scope))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _append(self, scope: Scope) -> None:
        try:
            principal = await self._verifier.verify(bearer(scope["headers"]))
            async with self._pg.transaction() as connection:
                await audit.append(
                    connection, actor=principal.name, action="refused", environment=environment_of(scope["path"]),
                    object=f"{scope['method']} {scope['path'][:PATH_LENGTH_MAX]}",
                    detail={"token": principal.id, "scopes": sorted(principal.scopes)},
                )  # fmt: skip
        except (Problem, RuntimeFault) as error:
            unwritten.add(1)
            log.warning("a refusal could not be written to the audit log: %s", error)


def environment_of(path: str) -> str | None:
    """The environment that a path names.

    >>> environment_of("/v1/environments/production/flags/a/kill")
    'production'
    """
    parts = path.split("/")
    return parts[3] if parts[1:3] == ["v1", "environments"] and len(parts) > 4 else None
