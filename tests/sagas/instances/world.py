"""An environment with a saga of three steps, its engine, a coordinator, and workers that are told what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
from rescind.wire import (
    InstanceAwait,
    InstanceStarted,
    InstanceStartRequest,
    Task,
    TaskClaim,
    TaskReport,
    TaskReportAnswer,
    TaskReportRequest,
)

from runtime.clock import Clock
from runtime.postgres import Postgres
from runtime.tokens import Principal
from sagas.breakers import Breakers
from sagas.decisions import Decisions
from sagas.instances import listing
from sagas.instances.bells import Bells
from sagas.instances.engine import WRITERS, Engine
from sagas.instances.keeper import Keeper
from sagas.instances.service import Instances
from sagas.instances.turns import Heard
from sagas.instances.work import Work
from sagas.ledger import Ledger
from sagas.tasks import TaskService
from tests.sagas.coordinator.world import ENVIRONMENT, FAST, FLAG
from tests.sagas.coordinator.world import World as Coordinated

ANYONE = Principal(
    id="t", name="tests", environment=ENVIRONMENT, scopes=frozenset({"effects", "read", "compensate", "work:order"})
)
RETRY = {"first_seconds": 0.02, "factor": 2, "cap_seconds": 0.1, "attempts_max": 3}


def step(name: str, *arguments: str, **fields: Any) -> dict[str, Any]:
    """A step that a worker acts and undoes."""
    return {
        "name": name,
        "kind": f"shop.{name}",
        "key": f"{name}:{{order_id}}",
        "arguments": ["order_id", *arguments],
        "settle_seconds": 0,
        "retry": {**RETRY, "attempts_max": 8},
        "act": {"retry": RETRY},
        "compensation": {"executor": "worker"},
        **fields,
    }


RESERVE, CAPTURE, CONFIRM = step("reserve"), step("capture"), step("confirm", "capture")
ORDER = (RESERVE, CAPTURE, CONFIRM)


MOVING = """
SELECT EXISTS (SELECT FROM sagas.ready) OR EXISTS (SELECT FROM sagas.look_ups WHERE NOT given_up)
    OR EXISTS (SELECT FROM sagas.waits WHERE at < 'infinity')
    OR EXISTS (SELECT FROM sagas.instances WHERE state = 'undoing' AND laid)
    OR EXISTS (SELECT FROM sagas.dispositions WHERE state = 'pending' AND reason IS DISTINCT FROM 'continues')
    OR EXISTS (SELECT FROM sagas.stopped AS s INNER JOIN sagas.fences AS f ON f.environment = s.environment AND f.flag = s.flag
        AND f.scope_key = '' AND NOT f.closed AND s.epoch < f.epoch)
    OR EXISTS (SELECT FROM sagas.rollbacks WHERE carries = 'kill' AND state IN ('fenced', 'drained', 'compensating'))
"""
"""Whether something is still going on by itself, beside what is in hands."""


KILL = (
    "SELECT rollback_id FROM rollbacks.{}($1, $2, 'bad release', 'kim', NULL, $3, $4, $5, $6, NULL, NULL, NULL, NULL, "
    "NULL, NULL)"
)
LIFT = "SELECT settled FROM rollbacks.lift_v2($1, $2, 'alex', 'a mistake', NULL, $3)"


class World(Coordinated):
    """The coordinator's world, with instances."""

    def __init__(self, pg: Postgres) -> None:
        super().__init__(pg)
        self.servers: list[Server] = []

    async def server(self, pg: Postgres | None = None, clock: Clock | None = None, **parts: Any) -> Server:
        """One server's parts, running; stopped with the world."""
        server = Server(self, pg or self.pg, clock or self.clock, **parts)
        await server.start()
        self.servers.append(server)
        return server

    async def stop(self) -> None:
        for server in self.servers:
            await server.stop()
        await super().stop()

    async def plan(self, *steps: dict[str, Any], version: str = "1", waits: Any = (), saga: str = "order", **said: Any) -> None:
        """Register a version of a saga; `said`: what it says of itself."""
        await self.define(*(steps or ORDER), version=version, saga=saga)
        await self.run(
            "UPDATE sagas.definitions SET document = document || $1::jsonb WHERE name = $2 AND version = $3",
            said,
            saga,
            version,
        )
        if waits:
            await self.run(
                "UPDATE sagas.definitions SET document = document || jsonb_build_object('waits', $1::jsonb) WHERE version = $2",
                list(waits),
                version,
            )

    async def know(self, *flags: str) -> None:
        """The rows that the functions which kill and lift need of these flags."""
        await self.run("INSERT INTO flagd.environments (name) VALUES ($1) ON CONFLICT DO NOTHING", ENVIRONMENT)
        for flag in flags or (FLAG,):
            await self.run(
                "INSERT INTO flagd.flags (environment, key, document, off_variant, changed_generation, changed_revision) "
                "VALUES ($1, $2, '{}', 'off', 1, 0) ON CONFLICT DO NOTHING",
                ENVIRONMENT,
                flag,
            )

    async def kill_flags(self, *flags: str, compensate: str = "auto", grace: float = 60.0, **fields: Any) -> UUID:
        """The kill that every path calls."""
        scope, since_at = fields.get("scope", {}), fields.get("since_at")
        asked = (ENVIRONMENT, list(flags or (FLAG,)), compensate, grace, scope, since_at)
        return await self.value(KILL.format(fields.get("by", "kill_v3")), *asked)  # type: ignore[no-any-return]

    async def lift_flag(self, flag: str = FLAG, *, force: bool = False) -> list[UUID]:
        """The lift that every path calls. The rollbacks that ended by it."""
        return await self.value(LIFT, ENVIRONMENT, flag, force)  # type: ignore[no-any-return]

    async def effects_of(self, identity: str) -> list[tuple[str, str, int]]:
        """Step, status and attempt of what was done under an instance."""
        rows = await self.rows("SELECT step, status, attempt FROM sagas.effects WHERE saga_instance = $1 ORDER BY id", identity)
        return [(row["step"], row["status"], row["attempt"]) for row in rows]

    async def undone(self, identity: str) -> list[tuple[str, str]]:
        """Step and what became of it, in the order in which it was undone."""
        rows = await self.rows(
            "SELECT e.step, d.state FROM sagas.effects e JOIN sagas.dispositions d ON d.effect_id = e.id "
            "WHERE e.saga_instance = $1 ORDER BY d.changed_at, e.id",
            identity,
        )
        return [(row["step"], row["state"]) for row in rows]


class Server:
    """The parts of one server process that have to do with instances."""

    def __init__(
        self,
        world: World,
        pg: Postgres,
        clock: Clock,
        *,
        coordinates: bool = True,
        writers: int = WRITERS,
        breakers: Breakers | None = None,
        no_worker_seconds: float = FAST.no_worker_seconds,
    ) -> None:
        self.world = world
        self.bells = Bells()
        self.ledger = Ledger(pg, clock, world.entropy)
        tuning = msgspec.structs.replace(FAST, no_worker_seconds=no_worker_seconds)
        self.coordinator = world.coordinator(pg=pg, clock=clock, tuning=tuning)
        self.engine = Engine(
            pg, clock, world.entropy, writers=writers, on_news=self.bells.news, ranges=self.coordinator.leases.held
        )
        self.undoing = TaskService(pg, clock, world.entropy, breakers=breakers, on_news=self.bells.news)
        self.work = Work(pg, clock, self.engine, self.undoing, self.ledger, self.bells)
        self.instances = Instances(pg, clock, self.engine, self.bells, Decisions(pg))
        self.keeper = Keeper(pg, clock, self.engine, self.coordinator.leases, self.bells, poll_seconds=0.05)
        self.pg = pg
        self._coordinates = coordinates

    async def start(self) -> None:
        await self.ledger.start()
        await self.engine.start()
        await self.undoing.start()
        if self._coordinates:
            await self.coordinator.start()
            await self.keeper.start()

    async def stop(self) -> None:
        if self._coordinates:
            await self.keeper.stop()
            await self.coordinator.stop()
        await self.undoing.stop()
        await self.engine.stop()
        await self.ledger.stop()

    # --- what a service does

    async def begin(
        self, identity: str, *, claim: TaskClaim | None = None, saga: str = "order", **fields: Any
    ) -> InstanceStarted:
        """Start one instance."""
        one = {"id": identity, "version": "1", "input": {"order_id": identity}, "variant": "on", **fields}
        answer = await self.instances.start(ENVIRONMENT, saga, InstanceStartRequest(instances=[one], claim=claim), ANYONE)
        self.tasks = answer.tasks
        return answer.results[0]

    async def ended(self, identity: str, wait_seconds: float = 10.0) -> tuple[str, Any]:
        """State of an instance that has ended, and its result."""
        request = InstanceAwait(ids=[identity], wait_seconds=wait_seconds)
        answer = await self.instances.wait(ENVIRONMENT, "order", request, ANYONE)
        return (answer.ended[0].state, answer.ended[0].result) if answer.ended else ("", None)

    async def say(self, identity: str, verb: str, name: str = "") -> Heard:
        """A person's verb."""
        return await self.instances.verb(ENVIRONMENT, "order", identity, verb, name=name, principal=ANYONE, reason="because")

    async def shown(self, identity: str) -> dict[str, Any]:
        """The instance as `GET` shows it."""
        row = await self.instances.find(ENVIRONMENT, "order", identity)
        async with self.pg.connection() as connection:
            return msgspec.to_builtins(await listing.whole(connection, row))  # type: ignore[no-any-return]

    # --- what a worker does

    async def take(self, **fields: Any) -> list[Task]:
        """Claim tasks."""
        return (await self.work.claim(ENVIRONMENT, claim(**fields), ANYONE)).tasks

    async def tell(
        self, task: Task, outcome: str = "succeeded", *, then: TaskClaim | None = None, **fields: Any
    ) -> TaskReportAnswer:
        """Report one task."""
        report = TaskReport(id=task.id, token=task.token, outcome=outcome, verb=task.verb, **fields)  # type: ignore[arg-type]
        return await self.work.report(ENVIRONMENT, TaskReportRequest(worker="w1", reports=[report], claim=then), ANYONE)

    async def history(self, identity: str, *facts: str) -> list[tuple[str, str, str | None]]:
        """What was said of an instance: the fact, by whom and why; of these facts alone where some are named."""
        shown = await self.shown(identity)
        said = [(one["fact"], one["by_whom"], one["reason"]) for one in shown["history"]]
        return [one for one in said if not facts or one[0] in facts]

    async def act(self, answers: Callable[[Task], dict[str, Any] | None] | None = None, **fields: Any) -> list[str]:
        """Work until nothing goes on by itself: act and undo, each as `answers` says, else with success. What was done."""
        done: list[str] = []
        while (tasks := await self.take(**{"wait_seconds": 0.2, **fields})) or await self.world.value(MOVING):
            while tasks:
                task = tasks.pop(0)
                done.append({"act": "", "undo": "-", "look_up": "?"}[task.verb] + task.step)
                told = (answers(task) if answers else None) or {"outcome": "succeeded", "proof": {"of": task.step}}
                tasks += (await self.tell(task, then=claim(**fields), **told)).tasks
        return done


def claim(**fields: Any) -> TaskClaim:
    """A worker's claim for everything of the saga."""
    names = ["reserve", "capture", "confirm", "left", "right"]
    values: dict[str, Any] = {
        "worker": "w1",
        "saga": "order",
        "versions": ["1"],
        "steps": names,
        "acts": names,
        "look_ups": names,
        "wait_seconds": 5.0,
        "continues": True,
    }
    values |= fields
    return TaskClaim(**values)
