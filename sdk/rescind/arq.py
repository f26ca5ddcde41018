"""arq: jobs carry the revision of who enqueued them, and each is done at one revision (P3).

    pool = instrument(await arq.create_pool(settings), client)

    @worker(client)
    class WorkerSettings:
        functions = [send_mail]

An arq job has no headers: the revision goes beside its arguments into what is serialized, where a worker that does not know
of it reads past it. This imports nothing of arq's, and needs serializers that take a dictionary, as its own do.
"""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from rescind.causality import BUDGET_SECONDS
from rescind.client import AsyncClient, Client
from rescind.context import Held
from rescind.crossing import Crossing

Serializer = Callable[[dict[str, Any]], bytes]
Deserializer = Callable[[bytes], dict[str, Any]]
Hook = Callable[[dict[Any, Any]], Awaitable[None]]

KEY = "rescind"


class Enqueues(Protocol):
    """arq's pool, as far as it matters here."""

    job_serializer: Serializer | None


Pool = TypeVar("Pool", bound=Enqueues)
Settings = TypeVar("Settings", bound=type)


def instrument(pool: Pool, client: Client | AsyncClient) -> Pool:
    """Have the jobs that `pool` enqueues carry the revision, and return it."""
    pool.job_serializer = carrying(Crossing(client), pool.job_serializer or pickle.dumps)
    return pool


def worker(
    client: Client | AsyncClient, *, trust: bool = True, budget_seconds: float = BUDGET_SECONDS
) -> Callable[[Settings], Settings]:
    """A decorator for a class of worker settings: its jobs are pinned, and what they enqueue carries on."""
    crossing = Crossing(client, budget_seconds=budget_seconds)

    def decorate(settings: Settings) -> Settings:
        jobs = Jobs(crossing, settings, trust=trust)
        said = vars(settings).get("job_serializer") or pickle.dumps
        replaced: dict[str, Any] = {
            "job_serializer": carrying(crossing, plain(said)),
            "job_deserializer": jobs.read,
            "on_job_start": jobs.begin,
            "on_job_end": jobs.end,
        }
        for name, value in replaced.items():
            setattr(settings, name, value)
        return settings

    return decorate


class Jobs:
    """What a worker calls for each job, all of it in the job's own task."""

    def __init__(self, crossing: Crossing, settings: type, *, trust: bool) -> None:
        own = {name: plain(value) for name, value in vars(settings).items()}
        self._crossing = crossing
        self._trust = trust
        self._read: Deserializer = own.get("job_deserializer") or pickle.loads
        self._start: Hook | None = own.get("on_job_start")
        self._end: Hook | None = own.get("on_job_end")
        self._carried: ContextVar[object] = ContextVar("rescind.arq.carried", default=None)
        self._held: ContextVar[Held | None] = ContextVar("rescind.arq.held", default=None)

    def read(self, data: bytes) -> dict[str, Any]:
        """A job, or a result. Raises what the deserializer raises."""
        job = self._read(data)
        self._carried.set(job.pop(KEY, None))
        return job

    async def begin(self, ctx: dict[Any, Any]) -> None:
        """Before the job."""
        carried = self._carried.get()
        held = await self._crossing.begin([carried] if self._trust and isinstance(carried, str) else [])
        self._held.set(held)
        try:
            if self._start is not None:
                await self._start(ctx)
        except BaseException:
            self._crossing.end(held)
            raise

    async def end(self, ctx: dict[Any, Any]) -> None:
        """After it, well or not."""
        try:
            if self._end is not None:
                await self._end(ctx)
        finally:
            if (held := self._held.get()) is not None:
                self._held.set(None)
                self._crossing.end(held)


def carrying(crossing: Crossing, serialize: Serializer) -> Serializer:
    """The serializer, with the revision that whoever enqueues has seen."""

    def serialized(job: dict[str, Any]) -> bytes:
        value = crossing.carried()
        return serialize({**job, KEY: value} if value is not None else job)

    return serialized


def plain(value: Any) -> Any:
    """What stands in a class, as arq takes it: unbound."""
    return value.__func__ if isinstance(value, staticmethod) else value
