"""Instances are found by what they are and how they stand, page by page, without reading the others (P20)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from runtime.postgres import Postgres
from sagas.instances import search
from sagas.instances.search import Filter, Page
from tests.sagas.coordinator.world import ENVIRONMENT
from tests.sagas.instances.world import CAPTURE, CONFIRM, RESERVE, Server, World

MANY = 20_000
CROWD = """
INSERT INTO sagas.instances (uid, environment, saga, id, version, flag, is_off, subject, attributes, input, input_hash,
    started_by, state, ended_at)
SELECT uuidv7(make_interval(secs => n - 40000)), $1, 'order', 'crowd-' || n, '1', 'checkout.new-flow', false, 'crowd',
    jsonb_build_object('tier', 'crowd', 'n', n), '{}', '', 'tests', 'done', clock_timestamp()
FROM generate_series(1, $2) AS n
"""


READ = """
SELECT pg_stat_get_xact_tuples_returned(t.oid) + pg_stat_get_xact_tuples_fetched(t.oid)
FROM pg_class AS t WHERE t.oid = 'sagas.instances'::regclass
"""


async def found(pg: Postgres, wanted: Filter, *, saga: str | None = "order", **fields: Any) -> Page:
    async with pg.transaction() as connection:
        return await search.page(connection, ENVIRONMENT, saga, wanted, **{"below": None, "limit": 100, **fields})


async def ids(pg: Postgres, **fields: Any) -> list[str]:
    return [row["id"] for row in (await found(pg, Filter(**fields))).rows]


async def test_how_an_instance_stands_is_found_wherever_it_goes(world: World, server: Server) -> None:
    await world.plan(RESERVE, CAPTURE, CONFIRM, waits=[{"name": "boss", "before": "capture", "approval": True}])
    for name in ("runs", "paused", "failed", "cancelled", "done"):
        await server.begin(name, subject=name, attributes={"tier": name})
    await server.act()
    assert await ids(server.pg, status="running") == ["done", "cancelled", "failed", "paused", "runs"]
    await server.say("paused", "pause")
    for name in ("failed", "done"):
        await server.say(name, "skip", "boss")
    fails = {"outcome": "failed", "final": True, "error": {"type": "CardRefused", "detail": "no"}}
    await server.act(lambda task: fails if (task.verb, task.step, task.instance) == ("act", "capture", "failed") else None)
    await server.say("cancelled", "cancel")
    await server.act()
    assert await ids(server.pg, status="running") == ["paused", "runs"]
    assert await ids(server.pg, paused=True) == ["paused"]
    assert await ids(server.pg, status="done") == ["done"]
    assert await ids(server.pg, status="undone") == ["cancelled", "failed"]
    assert await ids(server.pg, cause="cancelled") == ["cancelled"]
    assert await ids(server.pg, error="CardRefused") == ["failed"]
    assert await ids(server.pg, subject="runs") == await ids(server.pg, attributes={"tier": "runs"}) == ["runs"]
    assert await ids(server.pg, version="2") == await ids(server.pg, status="waiting") == await ids(server.pg, flag="x") == []
    await server.say("paused", "resume")
    assert await ids(server.pg, paused=True) == []
    strays = await world.rows("SELECT state FROM sagas.strays ORDER BY uid")
    assert [row["state"] for row in strays] == ["undone", "undone"]


async def test_one_that_waits_for_a_person_is_found_until_it_goes_on(world: World, server: Server) -> None:
    await world.plan(RESERVE, {**CAPTURE, "class": "pivot"}, CONFIRM)
    await server.begin("o1")
    fails = {"outcome": "failed", "final": True, "error": {"type": "Refused", "detail": "no"}}
    await server.act(lambda task: fails if task.step == "confirm" else None)
    assert await ids(server.pg, status="waiting") == await ids(server.pg, error="Refused", cause="failed") == ["o1"]
    await server.say("o1", "retry")
    assert await ids(server.pg, status="running") == ["o1"]
    await server.act()
    assert await ids(server.pg, status="waiting") == []
    assert await ids(server.pg, status="done") == ["o1"]
    assert await world.value("SELECT count(*) FROM sagas.strays") == 0


async def test_a_page_is_bounded_and_says_where_to_go_on(world: World, server: Server) -> None:
    await world.plan()
    await world.run(CROWD, ENVIRONMENT, 400)
    everything: list[str] = []
    below: UUID | None = None
    pages = 0
    while pages == 0 or below is not None:
        page = await found(server.pg, Filter(started_before=datetime.now(UTC)), below=below, limit=7, looked_max=100)
        everything += [row["id"] for row in page.rows]
        below, pages = page.next, pages + 1
    assert everything == [f"crowd-{n}" for n in range(400, 0, -1)]
    sparse = await found(server.pg, Filter(status="done", attributes={"n": 1}, subject="crowd"), limit=5, looked_max=50)
    assert (sparse.rows, sparse.next is not None) == ([], True)


async def test_age_is_found_by_id_and_judged_by_the_databases_clock(world: World, server: Server) -> None:
    await world.plan()
    for name in ("old", "new"):
        await server.begin(name)
    await world.run("UPDATE sagas.instances SET started_at = now() - interval '10 minutes' WHERE id = 'old'")
    then = datetime.now(UTC) - timedelta(minutes=5)
    assert (await ids(server.pg, started_before=then), await ids(server.pg, started_after=then)) == (["old"], ["new"])
    assert await ids(server.pg, started_before=datetime(1970, 1, 1, tzinfo=UTC)) == []


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(status="waiting"), Filter(status="running"), Filter(paused=True), Filter(subject="few"),
        Filter(cause="in_doubt"),
        Filter(attributes={"tier": "few"}), Filter(version="2"), Filter(flag="another"),
        Filter(started_before=datetime(2020, 1, 1, tzinfo=UTC)),
    ],
    ids=str,
)  # fmt: skip
async def test_few_among_many_are_found_without_a_look_at_the_others(world: World, server: Server, wanted: Filter) -> None:
    await world.plan()
    await world.run(CROWD, ENVIRONMENT, MANY)
    await world.run("ANALYZE sagas.instances")
    async with server.pg.transaction() as connection:
        before = await connection.fetchval(READ)
        page = await search.page(connection, ENVIRONMENT, None, wanted, below=None, limit=100)
        after = await connection.fetchval(READ)
    assert (page.rows, page.next) == ([], None)
    assert (page.looked, after - before) == (0, 0)
