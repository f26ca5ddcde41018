"""A saga instance as its caller sees it: started, awaited from anywhere, and how it ended (P14, P18)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from rescind.core import Core
from rescind.effects import copy_of
from rescind.errors import SagaConflict, SagaError, SagaKilled, SagaRefused, SagaUndone
from rescind.face import Face
from rescind.saga import Saga
from rescind.spans import traceparent
from rescind.wire import InstanceStart, InstanceStarted, InstanceState

PERSON_SECONDS = 2.0
"""How often an instance that waits for a person is looked at."""
REFUSALS: dict[str, type[SagaError]] = {"conflict": SagaConflict, "killed": SagaKilled, "invalid": SagaRefused}

Results = dict[str, Any]
"""What each step gave, by its name."""


class Order(Struct, frozen=True, kw_only=True):
    """What `client.start(...)` and `client.run(...)` were called with."""

    saga: Saga
    id: str
    input: Mapping[str, Any]
    variant: str | None = None
    subject: str | None = None
    attributes: Mapping[str, Any] | None = None

    def begun(self, core: Core, *, run_by: str | None = None, lease_seconds: float = 30.0) -> InstanceStart:
        """The request. Variant, revision and attributes are of the caller's own evaluation of the flag, as an effect's."""
        served = core.permits.served(self.saga.flag, self.variant, self.subject, self.attributes)
        return InstanceStart(
            id=self.id,
            version=self.saga.version,
            input=copy_of(dict(self.input)),
            variant=served.variant,
            revision=str(served.revision),
            subject=self.subject,
            attributes=copy_of(served.attributes),
            run_by=run_by,
            lease_seconds=lease_seconds,
            traceparent=traceparent(),
        )


class AsyncHandle:
    """An instance, for code on the client's loop."""

    def __init__(self, face: Face, saga: str, id: str) -> None:  # noqa: A002 - the wire's own word
        self._face = face
        self.saga = saga
        self.id = id

    async def result(self, timeout_seconds: float | None = None) -> Results:
        """What each step gave, once the instance is done; while it waits for a person, so does this.

        Raises `SagaUndone`, `SagaKilled`, `SagaUnknown`, and `TimeoutError`, which says where it stands.
        """
        return await self._face.on_core(result_of(self._face.core, self.saga, self.id, timeout_seconds))


class Handle:
    """An instance, for code without an event loop."""

    def __init__(self, face: Face, saga: str, id: str) -> None:  # noqa: A002 - the wire's own word
        self._face = face
        self.saga = saga
        self.id = id

    def result(self, timeout_seconds: float | None = None) -> Results:
        """As `AsyncHandle.result`."""
        return self._face.block_on_core(result_of(self._face.core, self.saga, self.id, timeout_seconds))


async def begin(core: Core, order: Order, start: InstanceStart) -> None:
    """Start the instance, whose saga is registered first. Raises the refusals, `Unreachable` and `ApiError`."""
    await core.registration.ensure(order.saga)
    accept(order.saga.name, start.id, await core.instances.start(order.saga.name, start))


def accept(saga: str, instance: str, started: InstanceStarted) -> None:
    """Raises what an answer other than started and exists becomes."""
    if started.outcome in REFUSALS:
        said = (started.error or {}).get("detail") or started.outcome
        raise REFUSALS[started.outcome](said, saga=saga, id=instance, cause=started.error)


async def result_of(core: Core, saga: str, instance: str, timeout_seconds: float | None) -> Results:
    """What each step gave, once the instance is done. Raises as `AsyncHandle.result`."""
    waits: InstanceState | None = None
    await core.named()
    try:
        async with asyncio.timeout(timeout_seconds):
            while (state := await core.instances.ended(saga, instance)).state == "waiting":
                waits = state
                await asyncio.sleep(PERSON_SECONDS)
    except TimeoutError:
        stands = f"waits for a person: {waits.reason}" if waits else "has not ended"
        raise TimeoutError(f"saga {saga} {instance!r} {stands} after {timeout_seconds:g} s") from None
    return concluded(saga, state)


def concluded(saga: str, state: InstanceState) -> Results:
    """The results of a done instance. Raises what another end becomes."""
    if state.state == "done":
        return dict(state.result or {})
    cause = state.error or {}
    detail = (cause.get("error") or {}).get("detail")
    said = ": ".join(str(text) for text in (state.reason, cause.get("step"), detail) if text)
    kind = SagaKilled if state.state == "killed" else SagaUndone
    raise kind(f"{state.state}{f' ({said})' if said else ''}", saga=saga, id=state.id, cause=cause)
