"""A fleet in virtual time: the SDK's own core, middleware and hooks over a simulated network, the same from one seed."""

from __future__ import annotations

import asyncio
import random
from enum import Enum
from pathlib import Path
from typing import Any

import httpx
import msgspec
from msgspec import Struct
from rescind import AsyncClient
from rescind.asgi import RescindMiddleware
from rescind.causality import CatchUp, Causality
from rescind.context import Pin
from rescind.core import Core
from rescind.evaluations import Evaluations
from rescind.httpx import Hooks
from rescind.settings import settings_from
from rescind.wire import Revision

from load.services.network import ENVIRONMENT, HOP, WORK, Network, Server
from load.services.service import Service
from load.services.traces import ROUTES, Hop, Route, is_stale, mixed
from load.services.virtual import VirtualClock, VirtualLoop, run

NAMES = ("a", "b", "c")
INSTANCES = 8
SETTLED_SECONDS = 1.0


class Carries(Enum):
    """What takes the revision from service to service."""

    NOTHING = "nothing"
    REQUESTS = "requests alone"
    REPLIES = "requests and replies"
    STALE = "both, and STALE where it is late"
    """The SDK as it is."""

    @property
    def guesses(self) -> bool:
        """Whether an instance that could not catch up serves what it has."""
        return self is not Carries.STALE


class Plan(Struct, frozen=True, kw_only=True):
    """One run."""

    seed: int = 1
    flips: int = 6
    flip_seconds: float = 2.0
    requests_per_second: float = 250.0
    cut: str = "b"
    """The service whose first instance is cut off from the stream."""
    cut_fetches: bool = False
    """It cannot fetch either."""
    routes: tuple[Route, ...] = ROUTES


class Result(Struct, frozen=True, kw_only=True):
    """What became of the requests of one run."""

    requests: int
    mixed: int
    turned: int
    """Of these, how many were given a new value of the flag, then the old one."""
    stale: int
    late_ms: list[float]
    """What catching up added to a hop that had to, ascending."""


class Guessing(Causality):
    """An instance that could not catch up serves what it has, without a word."""

    def pin(self, seen: Revision | None = None, outcome: CatchUp = CatchUp.REACHED) -> Pin:
        """On what is current."""
        seen = max(self._current.revision, seen or Revision())
        return Pin(self._current.evaluator, self._current.revision, seen, self._clock.monotonic())


class Instance(AsyncClient):
    """A client whose work is what the simulation starts: its stream, no polls, no beats."""

    def __init__(self, core: Core) -> None:
        Evaluations.__init__(self, core)
        self._loop, self.is_pending = None, False

    def ensure_started(self) -> None:
        """It is."""


class Fleet:
    """Three services, and the network between them."""

    def __init__(self, plan: Plan, carries: Carries, loop: VirtualLoop) -> None:
        self._plan = plan
        self._carries = carries
        self._loop = loop
        self._chance = random.Random(plan.seed)
        self._arrivals = random.Random(plan.seed)
        """The same requests, whatever carries the revision."""
        self.server = Server(random.Random(plan.seed + 1))
        self.late_ms: list[float] = []
        self._networks: dict[tuple[str, int], Network] = {}
        self._applications: dict[str, list[Any]] = {name: [self._instance(name, n) for n in range(INSTANCES)] for name in NAMES}

    async def results(self) -> list[Hop]:
        """What every request saw."""
        await asyncio.sleep(SETTLED_SECONDS)
        self._networks[self._plan.cut, 0].cut(fetches=self._plan.cut_fetches)
        until = self._loop.now + self._plan.flips * self._plan.flip_seconds
        flipping = asyncio.ensure_future(self._flip())
        requests = []
        while self._loop.now < until:
            requests.append(asyncio.ensure_future(self._request(self._arrivals.choice(self._plan.routes))))
            await asyncio.sleep(self._arrivals.expovariate(self._plan.requests_per_second))
        await flipping
        return await asyncio.gather(*requests)

    async def _flip(self) -> None:
        for _ in range(self._plan.flips):
            self.server.flip()
            await asyncio.sleep(self._plan.flip_seconds)

    async def _request(self, route: Route) -> Hop:
        """From outside: without a revision."""
        return msgspec.json.decode((await self._arrive(route, [])).content, type=Hop)

    def _instance(self, name: str, number: int) -> Any:
        network = Network(self.server, random.Random(f"{self._plan.seed} {name} {number}"))
        settings = settings_from(
            url="http://simulated", token="t", environment=ENVIRONMENT, service=name, state_dir=Path("/nowhere"), variables={}
        )
        core = Core(settings, clock=VirtualClock(self._loop, self._chance), api=network)  # type: ignore[arg-type]
        if self._carries.guesses:
            core.causality = Guessing(core.current, core.follower, core.context, core.clock)
        core.tasks.append(self._loop.create_task(core.follower.run()))
        self._networks[name, number] = network
        client = Instance(core)
        hooks = Hooks(client)

        async def call(route: Route) -> Hop:
            return await self._called(hooks, route)

        service = Service(name, number, client, call)
        return service if self._carries is Carries.NOTHING else RescindMiddleware(service, client)

    async def _called(self, hooks: Hooks, route: Route) -> Hop:
        """A call from one service to the next, with as much of the hooks as this run has."""
        request = httpx.Request("POST", "http://service/")
        if self._carries is not Carries.NOTHING:
            await hooks.request_async(request)
        response = await self._arrive(route, request.headers.raw)
        if self._carries in (Carries.REPLIES, Carries.STALE):
            begun = self._loop.now
            await hooks.response_async(response)
            self._note(begun)
        return msgspec.json.decode(response.content, type=Hop)

    async def _arrive(self, route: Route, headers: list[tuple[bytes, bytes]]) -> httpx.Response:
        await asyncio.sleep(HOP.drawn(self._chance))
        messages: list[Any] = [{"type": "http.request", "body": msgspec.json.encode(route)}]
        sent: list[Any] = []
        begun = self._loop.now

        async def receive() -> Any:
            self._note(begun)
            await asyncio.sleep(WORK.drawn(self._chance))
            return messages.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        raw = [(name.lower(), value) for name, value in headers]
        await self._chance.choice(self._applications[route.service])({"type": "http", "headers": raw}, receive, send)
        await asyncio.sleep(HOP.drawn(self._chance))
        return httpx.Response(sent[0]["status"], headers=sent[0]["headers"], content=sent[1]["body"])

    def _note(self, begun: float) -> None:
        if self._loop.now > begun:
            self.late_ms.append((self._loop.now - begun) * 1000)


def simulate(plan: Plan, carries: Carries) -> Result:
    """One run of the plan."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    fleet = Fleet(plan, carries, loop)
    hops = run(loop, fleet.results())
    found = [mixed(hop) for hop in hops]
    return Result(
        requests=len(hops),
        mixed=sum(bool(one) for one in found),
        turned=sum(any(older.is_turned for older in one) for one in found),
        stale=sum(is_stale(hop) for hop in hops),
        late_ms=sorted(fleet.late_ms),
    )
