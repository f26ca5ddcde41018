"""Sagas of this client: laid down at the server when it starts, and what their definitions say of steps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from rescind.clock import Clock, full_jitter_seconds
from rescind.errors import ApiError, Unreachable
from rescind.saga import Saga, is_within, without_arguments
from rescind.transport import AsyncApi
from rescind.wire import Fault, SagaReference

logger = logging.getLogger("rescind")


class Registration:
    """`named` returns once the environment is known."""

    def __init__(
        self, api: AsyncApi, sagas: Sequence[Saga], service: str, clock: Clock, named: Callable[[], Awaitable[None]]
    ) -> None:
        self._api = api
        self._sagas = sagas
        self._service = service
        self._clock = clock
        self._named = named
        self._ensuring: dict[tuple[str, str], asyncio.Future[bool]] = {}
        self.tried = asyncio.Event()
        """Set once each saga was registered, or an attempt failed."""

    def is_proof(self, reference: SagaReference | None, step: str | None, error: BaseException) -> bool:
        """Whether the step's definition lists the error as proof that nothing happened (P10)."""
        names = {kind.__name__ for kind in type(error).__mro__}
        return reference is not None and any(
            saga.name == reference.name and not names.isdisjoint(saga.proofs(step)) for saga in self._sagas
        )

    def lease_seconds(self, reference: SagaReference | None, step: str | None) -> float | None:
        """What the step's definition says of its lease, where its saga is registered here."""
        if reference is None or step is None:
            return None
        name, version = reference.name, reference.version
        declared = (saga.lease_seconds(step) for saga in self._sagas if (saga.name, saga.version) == (name, version))
        return next(declared, None)

    async def ensure(self, saga: Saga) -> None:
        """Return once the saga is registered, by whomever, asking once for all who call. Raises `ApiError`, `Unreachable`."""
        version = (saga.name, saga.version)
        ensuring = self._ensuring.get(version)
        if ensuring is None or (ensuring.done() and (ensuring.cancelled() or ensuring.exception())):
            ensuring = self._ensuring[version] = asyncio.ensure_future(self.register(saga))
        await asyncio.shield(ensuring)

    async def register(self, saga: Saga) -> bool:
        """Lay down the saga's definition. False where another meaning is registered under its version: that one holds."""
        await self._named()
        path = self._api.within(f"/sagas/{saga.name}/versions/{saga.version}")
        try:
            await self._lay_down(path, saga.document())
        except ApiError as error:
            if error.status == 403 and await self._is_registered(saga):
                return True
            if error.status != 409:
                raise
            logger.error(
                "saga %s version %s is registered with another meaning, which is used: %s", saga.name, saga.version, error
            )
            return False
        return True

    async def _lay_down(self, path: str, document: dict[str, Any]) -> None:
        """A server of the last release knows no arguments: it is told the rest, which is all that it acts upon (P21)."""
        params = {"reason": f"registered by {self._service}"}
        try:
            await self._api.send("PUT", path, document, params=params)
        except ApiError as error:
            if not error.errors or not all(is_unknown_argument(fault) for fault in error.errors):
                raise
            await self._api.send("PUT", path, without_arguments(document), params=params)

    async def _is_registered(self, saga: Saga) -> bool:
        """Whether exactly this is registered already: then it takes no right to lay it down."""
        path = self._api.within(f"/sagas/{saga.name}/versions/{saga.version}")
        try:
            standing = await self._api.call("GET", path, None, dict[str, Any])
        except ApiError:
            return False
        document, kept = saga.document(), standing.get("document")
        return is_within(document, kept) or is_within(without_arguments(document), kept)

    async def run(self) -> None:
        """Register them all, each as often as it takes."""
        for saga in self._sagas:
            try:
                await self._register_patiently(saga)
            except ApiError as error:
                logger.error("saga %s version %s was refused: %s", saga.name, saga.version, error)
        self.tried.set()

    async def _register_patiently(self, saga: Saga) -> None:
        failures = 0
        while True:
            try:
                await self.ensure(saga)
                return
            except (Unreachable, ApiError) as error:
                if isinstance(error, ApiError) and not error.passing:
                    raise
                self.tried.set()
                failures += 1
                await asyncio.sleep(full_jitter_seconds(self._clock, failures))


def is_unknown_argument(fault: Fault) -> bool:
    """Whether it says of nothing but a step's arguments that they are no field."""
    return fault.code == "unknown_field" and fault.pointer.endswith("/arguments")
