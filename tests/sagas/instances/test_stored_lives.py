"""Lives of saga instances over the real database: two servers, workers whose tasks are told, lost and told again, people, kills
and lifts, events, time. Each promise is looked at after each step, and the checks of load/chaos judge the whole in the end.

A coordinator works only within its rule. What time says is said by moving the rows' instants; RESCIND_TEST_LONG=1 lives longer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

import hypothesis
import msgspec
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from rescind.wire import Task

from load.chaos.checks import violations
from load.chaos.history import Entry, Reported, Started, Terms
from load.chaos.reading import read, watch
from runtime.embedded import EmbeddedPostgres
from runtime.postgres import Postgres
from tests.conftest import run_on, with_database
from tests.sagas.coordinator.world import ENVIRONMENT, FLAG
from tests.sagas.instances.world import ANYONE, Server, World, claim, step

LONG = os.environ.get("RESCIND_TEST_LONG") == "1"
EXAMPLES = 300 if LONG else 12
STEPS_MAX = 60 if LONG else 25
ROUNDS_MAX = 200
"""More than all attempts of all steps and undoings of an example."""
NAMES = ("reserve", "capture", "confirm")
UNDOING: Any = {"in_doubt": "assume_done", "retry": {"first_seconds": 0.01, "cap_seconds": 0.01, "attempts_max": 50}}
ACT = {"retry": {"first_seconds": 0.01, "cap_seconds": 0.01, "attempts_max": 4}}
EVENT = {"name": "paid", "before": "confirm", "event": True}
FORGET = """
TRUNCATE sagas.instances, sagas.facts, sagas.ready, sagas.waits, sagas.moving, sagas.effects, sagas.keys, sagas.dispositions,
    sagas.members, sagas.late, sagas.attempts, sagas.compensations, sagas.rollbacks, sagas.rollback_flags, sagas.subjects,
    sagas.definitions, sagas.stopped, sagas.openings, sagas.grants, sagas.continued, chaos.writes, flagd.kills CASCADE
"""
LEASES_END = (
    "UPDATE sagas.effects SET lease_until = clock_timestamp() - interval '1 s', start_until = clock_timestamp() "
    "- interval '1 s' WHERE status = 'admitted'",
    "UPDATE sagas.compensations SET lease_until = clock_timestamp() - interval '1 s' WHERE state = 'running'",
)
DUE = (
    "UPDATE sagas.ready SET due_at = clock_timestamp() - interval '1 s' WHERE due_at > clock_timestamp()",
    "UPDATE sagas.compensations SET due_at = clock_timestamp() WHERE state = 'due'",
)
MOVING = (
    "SELECT EXISTS (SELECT FROM sagas.instances WHERE state IN ('running', 'undoing')) OR EXISTS (SELECT FROM "
    "sagas.dispositions d WHERE chaos.moves(d)) OR EXISTS (SELECT FROM sagas.rollbacks r WHERE carries = 'kill' AND "
    "state NOT IN ('settled', 'waiting') AND NOT chaos.is_behind(r)) OR EXISTS (SELECT FROM sagas.stopped s JOIN "
    "sagas.fences f USING (environment, flag) WHERE NOT f.closed AND s.epoch < f.epoch)"
)
FINAL = ("compensated", "irreversible", "skipped")
AFTER = {"done": {"done"}, "undone": {"undone", "undoing", "waiting"}, "killed": {"killed"}}
"""Where an instance may be found after it was found in an end: late news opens an undoing again (P11)."""
TAKEN = (
    "SELECT count(*) FROM sagas.effects e JOIN sagas.dispositions d ON d.effect_id = e.id JOIN sagas.rollbacks r "
    "ON r.id = d.rollback_id WHERE e.saga_instance = $1 AND r.carries = 'kill'"
)
NAMED = (
    "SELECT count(*) FROM sagas.effects mine JOIN sagas.named n ON n.saga_instance = mine.saga_instance "
    "JOIN sagas.rollbacks r ON r.id = n.rollback_id WHERE mine.id = $1 AND r.state <> 'settled' AND r.compensate <> 'none'"
)
"""How many effects of the instance of this one an unfinished rollback will come to."""
GRANTED = (
    "SELECT count(*) FROM sagas.effects mine JOIN sagas.continued c ON c.effect_id = mine.id JOIN sagas.grants g "
    "ON g.rollback_id = c.rollback_id AND g.closes_epoch >= mine.epoch AND g.version = mine.saga_version "
    "WHERE mine.id = $1 AND (g.pivot IS NULL OR EXISTS (SELECT FROM sagas.effects p WHERE p.saga_instance = mine.saga_instance "
    "AND p.step = g.pivot AND p.completed_at <= g.granted_at))"
)
UNDOING_NOW = (
    "SELECT count(*) FROM sagas.effects mine JOIN sagas.effects e ON e.saga_instance = mine.saga_instance "
    "JOIN sagas.dispositions d ON d.effect_id = e.id WHERE mine.id = $1 AND d.reason IS DISTINCT FROM 'continues'"
)
UNCOUNTED = (
    "SELECT count(*) FROM sagas.continued c JOIN sagas.rollbacks r ON r.id = c.rollback_id AND r.state = 'settled' "
    "AND r.outcome IS NULL WHERE NOT EXISTS (SELECT FROM sagas.members m WHERE (m.rollback_id, m.effect_id) = "
    "(c.rollback_id, c.effect_id))"
)

T = TypeVar("T")
numbers = some.integers(0, 7)
servers = some.integers(0, 1)


class Lives(RuleBasedStateMachine):
    """`hands`: tasks that somebody holds; those told stay, and may be told again. `entries`: the provider's ledger."""

    runner: asyncio.Runner
    world: World
    both: list[Server]

    def __init__(self) -> None:
        super().__init__()
        self.hands: list[Task] = []
        self.acted: set[str] = set()
        self.entries: list[Entry] = []
        self.started: dict[str, None] = {}
        self.reported: list[Reported] = []
        self.states: dict[str, str] = {}
        self.ends: dict[str, str] = {}
        self.paused: set[str] = set()
        self.is_killed = False
        self.epoch = 1

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize(waits=some.booleans(), pivot=some.booleans(), finishes=some.booleans())
    def begin(self, waits: bool, pivot: bool, finishes: bool) -> None:
        self.do(self.lay_down(waits, pivot, finishes))

    async def lay_down(self, waits: bool, pivot: bool, finishes: bool) -> None:
        await self.world.run(FORGET)
        await self.world.run("UPDATE sagas.fences SET closed = false, epoch = 1, rollback_id = NULL")
        await self.world.know()
        await self.world.run("UPDATE flagd.flags SET epoch = 1")
        for server in self.both:
            server.engine.plans.__init__(server.world.clock)  # type: ignore[misc]
        middle = {"class": "pivot"} if pivot else {}
        last = {"class": "retriable"} if pivot else {}
        steps = [step(name, act=ACT, **UNDOING, **fields) for name, fields in zip(NAMES, ({}, middle, last), strict=True)]
        await self.world.plan(*steps, waits=[EVENT] if waits else ())
        if finishes:
            on_kill = {"on_kill": "finish_then_compensate"}
            await self.world.run("UPDATE sagas.definitions SET document = document || $1::jsonb", on_kill)
        self.waits = waits

    # --- what happens ------------------------------------------------------------------------------------------------

    @rule(number=some.integers(0, 2), at=servers, takes=some.booleans(), old_way=some.booleans())
    def start(self, number: int, at: int, takes: bool, old_way: bool) -> None:
        name = f"o{number}"
        fields = {"variant": "off" if old_way and number == 2 else "on"}
        one = self.do(self.both[at].begin(name, claim=claim(wait_seconds=0) if takes else None, **fields))
        assert one.outcome in ("started", "exists", "killed")
        assert (one.outcome == "exists") == (name in self.started)
        if one.outcome == "started":
            self.started[name] = None
        self.hold(self.both[at].tasks)

    @rule(at=servers, limit=some.integers(1, 3))
    def claim(self, at: int, limit: int) -> None:
        self.hold(self.do(self.both[at].take(wait_seconds=0, limit=limit)))

    @precondition(lambda self: self.hands)
    @rule(
        number=numbers, at=servers, goes_on=some.booleans(),
        how=some.sampled_from(["succeeded", "succeeded", "lost", "failed", "final", "unknown", "done unknown", "not_started"]),
    )  # fmt: skip
    def end(self, number: int, at: int, goes_on: bool, how: str) -> None:
        """A body comes to its end, and says so or not; `lost`: it was done, and nobody heard of it."""
        task = self.hands[number % len(self.hands)]
        if how in ("failed", "final", "not_started") and task.token in self.acted:
            return  # its provider has answered it: it cannot prove the contrary
        if how in ("succeeded", "lost", "done unknown"):
            self.provide(task)
        if how != "lost":
            if how == "not_started" and (self.is_killed or task.continued):
                self.hands.remove(task)  # its key is closed: it never begins
            self.tell(task, at, {"final": "failed", "done unknown": "unknown"}.get(how, how), goes_on, final=how == "final")

    @precondition(lambda self: self.hands)
    @rule(at=servers)
    def all_goes_well(self, at: int) -> None:
        for task in list(self.hands[-3:]):
            self.provide(task)
            self.tell(task, at, "succeeded", True)

    @rule()
    def leases_run_out(self) -> None:
        self.do(self.say(*LEASES_END))

    @rule()
    def what_is_delayed_is_due(self) -> None:
        self.do(self.say(*DUE))

    @rule(at=servers)
    def a_coordinator_works(self, at: int) -> None:
        self.do(self.coordinate(at))

    @precondition(lambda self: self.started)
    @rule(number=numbers, at=servers, verb=some.sampled_from(["cancel", "pause", "resume", "retry", "retry"]))
    def a_person_says(self, number: int, at: int, verb: str) -> None:
        name = sorted(self.started)[number % len(self.started)]
        heard = self.do(self.both[at].say(name, verb))
        assert heard.why in (None, "past_pivot")
        again = self.do(self.both[1 - at].say(name, verb))
        assert not again.changed or verb == "retry", "a verb that was heard changes nothing the second time"

    @precondition(lambda self: self.started and self.waits)
    @rule(number=numbers, at=servers)
    def an_event_is_told(self, number: int, at: int) -> None:
        name = sorted(self.started)[number % len(self.started)]
        self.do(self.event(name, at))

    @precondition(lambda self: not self.is_killed)
    @rule(grace=some.sampled_from([0.0, 60.0]), compensate=some.sampled_from(["auto", "auto", "none"]))
    def the_flag_is_killed(self, grace: float, compensate: str) -> None:
        self.do(self.world.kill_flags(grace=grace, compensate=compensate))
        self.is_killed, self.epoch = True, self.epoch + 1

    @precondition(lambda self: self.is_killed)
    @rule()
    def the_flag_is_lifted(self) -> None:
        self.do(self.world.lift_flag(force=True))
        self.is_killed, self.epoch = False, self.epoch + 1

    @precondition(lambda self: not self.is_killed and self.started)
    @rule(at=servers, works=some.booleans(), grace=some.sampled_from([60.0, 0.0]))
    def it_was_a_mistake(self, at: int, works: bool, grace: float) -> None:
        """Killed, met by somebody, and lifted: in grace, or too late for some."""
        self.the_flag_is_killed(grace, "auto")
        self.leases_run_out()
        self.do(self.coordinate(at) if works else self.both[at].take(wait_seconds=0, limit=3))
        self.what_was_acknowledged_is_there()
        self.the_flag_is_lifted()
        self.do(self.coordinate(1 - at))

    # --- how ---------------------------------------------------------------------------------------------------------

    def hold(self, tasks: list[Task]) -> None:
        for task in tasks:
            self.do(self.check_hand(task))
        self.hands += tasks

    async def check_hand(self, task: Task) -> None:
        """P8: a killed flag's steps are not handed out. P14: what is undone next is the latest that is left."""
        effect = task.effects[0]
        if task.verb == "act" and task.continued:
            assert await self.world.value(GRANTED, effect["id"]), "goes on though no kill granted it"
            assert not await self.world.value(UNDOING_NOW, effect["id"]), "goes on while it is undone"
            return
        if task.verb == "act":
            assert effect["variant"] == "off" or (not self.is_killed and effect["epoch"] == self.epoch), "past the fence"
            named = 0 if effect["variant"] == "off" else await self.world.value(NAMED, effect["id"])
            assert not named, "goes on, and a kill will undo it"
            return
        later = await self.world.value(
            "SELECT count(*) FROM sagas.effects e LEFT JOIN sagas.dispositions d ON d.effect_id = e.id, sagas.effects mine "
            "WHERE mine.id = $1 AND e.saga_instance = mine.saga_instance AND NOT e.is_off "
            "AND e.completed_at > mine.completed_at "
            "AND (d.state IS NULL OR d.state = 'pending')",
            effect["id"],
        )
        assert not later, "undone before what was completed after it"

    def provide(self, task: Task) -> None:
        """The provider, which knows its keys."""
        self.acted.add(task.token)
        effect = task.effects[0]
        verb = "act" if task.verb == "act" else "undo"
        known = {(entry.verb, entry.effect_id) for entry in self.entries}
        if (verb, effect["id"]) in known or (verb == "act" and ("void", effect["id"]) in known):
            return
        verb = "void" if verb == "undo" and ("act", effect["id"]) not in known else verb
        amount = 500 if task.step == "capture" else 0
        name = str(effect.get("saga_instance"))
        values = {"number": len(self.entries) + 1, "verb": verb, "effect_id": effect["id"], "saga": "order", "order": name}
        self.entries.append(msgspec.convert({**values, "step": task.step, "amount": amount}, Entry))

    def tell(self, task: Task, at: int, outcome: str, goes_on: bool, *, final: bool = False) -> None:
        done = {(entry.verb, entry.effect_id) for entry in self.entries}
        if outcome == "succeeded" and task.verb == "act" and ("act", task.effects[0]["id"]) not in done:
            return  # refused by the provider: it was undone before
        then = claim(wait_seconds=0, limit=2) if goes_on else None
        fields = {"final": True} if final else {}
        answer = self.do(self.both[at].tell(task, outcome, then=then, **fields))
        if answer.results == ["recorded"]:
            self.reported.append(Reported(id=task.id, verb=task.verb or "undo", outcome=outcome))
        self.hold(answer.tasks)

    async def say(self, *statements: str) -> None:
        for statement in statements:
            await self.world.run(statement)

    async def event(self, name: str, at: int) -> None:
        told: Any = {"payload": {}, "event_id": "once", "principal": ANYONE}
        await self.both[at].instances.event(ENVIRONMENT, "order", name, "paid", **told)

    async def coordinate(self, at: int) -> None:
        """It takes the ranges, looks at everything that time says, moves undoings on, and gives the ranges back."""
        server = self.both[at]
        await server.coordinator.start()
        try:
            while len(server.coordinator.leases.held()) < 16:
                await asyncio.sleep(0.01)
            for _ in range(3):
                while await server.keeper.round():
                    pass
                server.coordinator.nudge()
                await asyncio.sleep(0.06)
        finally:
            await server.coordinator.stop()

    # --- what is promised --------------------------------------------------------------------------------------------

    @invariant()
    def what_was_acknowledged_is_there(self) -> None:  # P10
        rows = self.do(self.world.rows("SELECT id, state FROM sagas.instances"))
        assert {row["id"] for row in rows} == set(self.started)
        for row in rows:
            before = self.states.get(row["id"])
            if before == "killed" and row["state"] != "killed":  # P17: lifted, and nothing of it was taken
                assert not self.is_killed
                assert not self.do(self.world.value(TAKEN, row["id"]))
                before = None
            assert row["state"] in AFTER.get(before or "", {row["state"]}), f"{before} became {row['state']}"
            self.states[row["id"]] = row["state"]

    @invariant()
    def what_is_known_stays_known(self) -> None:  # P10, P11
        ids = [one.id for one in self.reported if one.verb == "act" and one.outcome == "succeeded"]
        sql = "SELECT count(*) FROM sagas.effects WHERE id = ANY($1::uuid[]) AND status <> 'succeeded'"
        assert not self.do(self.world.value(sql, ids))

    @invariant()
    def a_step_is_one_effect_at_a_time(self) -> None:  # P9
        sql = (
            "SELECT count(*) FROM (SELECT FROM sagas.effects WHERE status <> 'failed' "
            "GROUP BY saga_instance, step HAVING count(*) > 1) AS twice"
        )
        assert not self.do(self.world.value(sql))

    @invariant()
    def what_is_undone_is_undone_for_ever(self) -> None:  # P13
        rows = self.do(self.world.rows("SELECT effect_id::text AS id, state FROM sagas.dispositions"))
        found = {row["id"]: row["state"] for row in rows}
        for identity, end in self.ends.items():
            assert found[identity] == end
        self.ends |= {identity: state for identity, state in found.items() if state in FINAL}

    @invariant()
    def what_continued_is_in_the_set(self) -> None:  # P8, P12
        assert not self.do(self.world.value(UNCOUNTED))

    @invariant()
    def nothing_is_undone_in_a_living_hand(self) -> None:  # P8
        sql = (
            "SELECT count(*) FROM sagas.effects e JOIN sagas.dispositions d ON d.effect_id = e.id "
            "JOIN sagas.compensations c ON c.id = d.compensation_id "
            "WHERE e.status = 'admitted' AND e.lease_until > clock_timestamp() AND c.state = 'running'"
        )
        assert not self.do(self.world.value(sql))

    def teardown(self) -> None:
        if hasattr(self, "waits"):
            self.do(self.heal())

    async def heal(self) -> None:
        """All faults heal: then it ends, and the history is sound."""
        if self.is_killed:
            await self.world.lift_flag(force=True)
        for name in sorted(self.started):
            await self.both[0].say(name, "resume")
            if self.waits:
                await self.event(name, 0)
        await self.say(*LEASES_END)
        for _ in range(ROUNDS_MAX):
            await self.say(*DUE)
            await self.coordinate(0)
            tasks = await self.both[1].take(wait_seconds=0, limit=10)
            while tasks:
                task = tasks.pop()
                self.provide(task)
                await self.both[0].tell(task)
                tasks += await self.both[1].take(wait_seconds=0, limit=10)
            if not await self.world.value(MOVING):
                break
        async with self.world.pg.connection() as connection:
            found = await read(connection)
        history = msgspec.structs.replace(
            found,
            sagas={"order": [Terms(name=name, moves_money=name == "capture") for name in NAMES]},
            entries=self.entries,
            started=[Started(saga="order", id=name) for name in self.started],
            reported=self.reported,
        )
        assert {name: broken for name, broken in violations(history).items() if broken} == {}


def test_stored_lives(postgres_server: EmbeddedPostgres, migrated_template: str) -> None:
    name = "stored_lives"
    url = with_database(postgres_server.url, name)
    with asyncio.Runner() as runner:
        runner.run(run_on(postgres_server.url, f"CREATE DATABASE {name} TEMPLATE {migrated_template}"))
        pg = runner.run(Postgres.open(url, application_name=name, size_max=10, wait_seconds=10))
        world = World(pg)
        both = runner.run(_open(world))
        lives = type("StoredLives", (Lives,), {"runner": runner, "world": world, "both": both})
        settings = hypothesis.settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS_MAX, deadline=None, derandomize=not LONG,
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        try:
            run_state_machine_as_test(lives, settings=settings)
        finally:
            runner.run(_close(world, pg))


async def _open(world: World) -> list[Server]:
    await world.flag(FLAG)
    async with world.pg.connection() as connection:
        await watch(connection)
    return [await world.server(coordinates=False) for _ in range(2)]


async def _close(world: World, pg: Postgres) -> None:
    for server in world.servers:
        await server.stop()
    await pg.close()
