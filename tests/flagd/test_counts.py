"""Counts on a real database: summed over a fleet, each window once, in nobody's way."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rescind.durations import bucket_of

from flagd.core import counting
from flagd.core.counting import AGE_MS_MAX, OTHERS, Room, Summary, read
from flagd.counts import KEEP_SECONDS, FlagCounts
from runtime.errors import Unavailable
from tests.flagd.world import PRODUCTION, World, flag, served

FLEET = 1000
PATH = f"/v1/environments/{PRODUCTION}"


def window(sequence: int = 1, count: int = 1, ended_ms_ago: int = 0, **more: Any) -> dict[str, Any]:
    evaluations = [{"flag": "a", "variant": "on", "reason": "STATIC", "count": count}]
    return {"sequence": sequence, "ended_ms_ago": ended_ms_ago, "evaluations": evaluations, **more}


def summary(*windows: dict[str, Any], run: str = "r", service: str = "web") -> Summary:
    found, faults = read({"run": run, "service": service, "windows": list(windows)})
    assert faults == []
    assert found is not None
    return found


async def counts(world: World, key: str = "a", seconds: int = 600, window_seconds: int = 10) -> FlagCounts:
    until = datetime.now(UTC) + timedelta(seconds=20)
    return await world.counts.of_flag(PRODUCTION, key, until - timedelta(seconds=seconds), until, window_seconds)


async def total(world: World, key: str = "a") -> int:
    return sum(one.count for one in (await counts(world, key, seconds=7200)).totals)


async def test_a_fleet_is_summed_by_window_service_variant_and_reason(world: World) -> None:
    await world.put(flag("a"))
    sent = [summary(window(), window(2, ended_ms_ago=30_000), run=f"{n}", service=f"s{n % 2}") for n in range(FLEET)]
    await asyncio.gather(*(world.counts.take(PRODUCTION, one) for one in sent))
    found = await counts(world)
    assert [(one.service, one.variant, one.count, one.share) for one in found.totals] == [
        ("s0", "on", FLEET, 1.0),
        ("s1", "on", FLEET, 1.0),
    ]
    assert [[one.evaluations for one in each.series] for each in found.windows] == [[{"STATIC": FLEET // 2}] * 2] * 2
    assert found.windows[1].at - found.windows[0].at == timedelta(seconds=30)
    async with world.pg.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM flagd.evaluation_counts") == 4


async def test_a_repeat_is_counted_once_whatever_comes_along_with_it(world: World) -> None:
    await world.put(flag("a"))
    assert (await world.counts.take(PRODUCTION, summary(window(1, 5)))).taken == 1
    assert (await world.counts.take(PRODUCTION, summary(window(1, 5)))).taken == 0
    assert (await world.counts.take(PRODUCTION, summary(window(1, 5), window(2, 7), window(2, 7)))).taken == 1
    both = summary(window(3, 1))
    await asyncio.gather(*(world.counts.take(PRODUCTION, both) for _ in range(20)))
    assert (await world.counts.take(PRODUCTION, summary(window(1, 100), run="another"))).taken == 1
    assert await total(world) == 5 + 7 + 1 + 100


async def test_windows_are_placed_by_the_servers_clock_alone(world: World) -> None:
    await world.put(flag("a"))
    answer = await world.counts.take(PRODUCTION, summary(window(1, ended_ms_ago=AGE_MS_MAX + 1), window(2)))
    assert answer.taken == 1, "what is older than an hour is no longer taken"
    assert answer.next_window_in_ms is not None
    assert 0 < answer.next_window_in_ms <= 10_000
    (one,) = (await counts(world)).windows
    assert one.at.timestamp() % 10 == 0
    assert not one.complete


async def test_outcomes_are_summed_with_the_quantiles_of_all_their_durations(world: World) -> None:
    await world.put(flag("a"))
    for run, duration_ms, ok in (("1", 10.0, 98), ("2", 1000.0, 0)):
        outcome = {"flag": "a", "variant": "on", "ok": ok, "failed": 1, "durations": [[bucket_of(duration_ms), ok + 1]]}
        await world.counts.take(PRODUCTION, summary(window(outcomes=[outcome]), run=run))
    (one,) = (await counts(world)).totals
    assert (one.ok, one.failed, one.duration_ms.count) == (98, 2, 100)
    assert one.duration_ms.p50 == pytest.approx(10, rel=0.045)
    assert one.duration_ms.p99 == pytest.approx(10, rel=0.045)
    await world.counts.take(PRODUCTION, summary(window(outcomes=[outcome]), run="3"))
    (one,) = (await counts(world)).totals
    assert one.duration_ms.p99 == pytest.approx(1000, rel=0.045)


async def test_names_that_nobody_made_are_summed_under_none(world: World) -> None:
    await world.put(flag("a"))
    strange = [{"flag": f"x{n}", "variant": f"v{n}", "reason": f"R{n}", "count": 1} for n in range(500)]
    await world.counts.take(PRODUCTION, summary(window(evaluations=strange)))
    async with world.pg.connection() as connection:
        rows = await connection.fetch("SELECT flag, variant, reason, service, count FROM flagd.evaluation_counts")
    assert [tuple(row) for row in rows] == [(OTHERS, "", "", "", 500)]


def test_one_window_has_room_for_so_many_rows_over_all_batches() -> None:
    room, known = Room(series_max=2), counting.EvaluationKey("e", "f", 0, "s", "v", "r")
    assert [room.fits(known._replace(variant=text)) for text in "abcab"] == [True, True, False, True, True]
    assert room.fits(known._replace(window_at=10, variant="c"))
    for begin in range(counting.ROOMS_MAX + 1):
        room.fits(known._replace(window_at=begin * 10 + 100))
    assert room.fits(known._replace(variant="c")), "rooms are forgotten, the oldest first"


async def test_old_windows_and_silent_runs_are_forgotten(world: World) -> None:
    await world.put(flag("a"))
    outcome = {"flag": "a", "variant": "on", "ok": 1, "failed": 0}
    await world.counts.take(PRODUCTION, summary(window(outcomes=[outcome])))
    async with world.pg.connection() as connection:
        for table in ("evaluation_counts", "outcome_counts"):
            old = f"UPDATE flagd.{table} SET window_at = window_at - make_interval(secs => $1)"
            await connection.execute(old, KEEP_SECONDS + 60)
        await connection.execute("UPDATE flagd.count_runs SET seen_at = seen_at - interval '3 hours'")
    await world.counts.take(PRODUCTION, summary(window(), run="new"))
    await world.counts.forget()
    async with world.pg.connection() as connection:
        left = [
            await connection.fetchval("SELECT count(*) FROM flagd.evaluation_counts"),
            await connection.fetchval("SELECT count(*) FROM flagd.outcome_counts"),
            await connection.fetchval("SELECT string_agg(run, ',') FROM flagd.count_runs"),
        ]
    assert left == [1, 0, "new"]


async def test_a_kill_never_waits_for_counts_nor_they_for_it(world: World) -> None:
    await world.put(flag("a"), flag("b"))
    async with world.pg.transaction() as holding:
        await holding.execute("LOCK TABLE flagd.evaluation_counts, flagd.outcome_counts, flagd.count_runs")
        stuck = asyncio.create_task(world.counts.take(PRODUCTION, summary(window())))
        await asyncio.wait_for(world.kill("a"), 5)
        await asyncio.wait_for(world.put(flag("b", owner="ann")), 5)
        assert not stuck.done()
    await stuck
    async with world.pg.transaction() as holding:
        await holding.execute("SELECT FROM flagd.environments FOR UPDATE")
        await holding.execute("SELECT FROM flagd.flags FOR UPDATE")
        await asyncio.wait_for(world.counts.take(PRODUCTION, summary(window(2))), 5)
    assert await total(world) == 2


async def test_what_cannot_wait_any_longer_is_refused_and_nothing_else(world: World) -> None:
    await world.put(flag("a"))
    big = summary(window(evaluations=[{"flag": "a", "variant": "on", "count": 1}] * counting.ROWS_MAX))
    async with world.pg.transaction() as holding:
        await holding.execute("LOCK TABLE flagd.count_runs")
        waiting = [asyncio.create_task(world.counts.take(PRODUCTION, big)) for _ in range(40)]
        done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
        assert all(isinstance(one.exception(), Unavailable) for one in done)
    assert len(pending) >= 20
    await asyncio.gather(*pending)
    assert await total(world) == counting.ROWS_MAX


# --- over HTTP --------------------------------------------------------------------------------------------------------


async def test_every_fault_of_a_summary_is_told_at_once_and_nothing_of_it_is_counted(world: World) -> None:
    await world.put(flag("a"))
    bad = {
        "run": "",
        "service": "x" * 300,
        "windows": [
            {**window(), "evaluations": [{"flag": "a\0"}, {"flag": "a", "count": -1}, {"flag": 7}]},
            {"sequence": 0, "ended_ms_ago": -60_000, "outcomes": [{"flag": "a", "durations": [[999, 1], [1, -1]]}]},
            7,
        ],
    }
    async with served(world) as http:
        headers = {"authorization": f"Bearer {await world.token('evaluate')}"}
        answer = await http.post(f"{PATH}/counts", json=bad, headers=headers)
        assert answer.status_code == 422
        assert {fault["pointer"] for fault in answer.json()["errors"]} == {
            "/run", "/service", "/windows/0/evaluations/0/flag", "/windows/0/evaluations/1/count", "/windows/0/evaluations/2",
            "/windows/1/sequence", "/windows/1/ended_ms_ago", "/windows/1/outcomes/0/durations/0/0",
            "/windows/1/outcomes/0/durations/1/1", "/windows/2",
        }  # fmt: skip
        many = {"run": "r", "service": "s", "windows": [window(n + 1) for n in range(counting.WINDOWS_MAX + 1)]}
        assert (await http.post(f"{PATH}/counts", json=many, headers=headers)).status_code == 422
        rows = {"run": "r", "service": "s", "windows": [window(evaluations=[{"flag": ""}] * (counting.ROWS_MAX + 1))]}
        assert (await http.post(f"{PATH}/counts", json=rows, headers=headers)).status_code == 422
    assert await total(world) == 0


async def test_a_newer_sdk_is_understood_and_only_who_evaluates_is_believed(world: World) -> None:  # P21
    await world.put(flag("a"))
    newer = window(1, 3, novel=1)
    newer["evaluations"][0] |= {"novel": [1], "reason": "NOVEL"}
    body = {"run": "r", "service": "web", "windows": [newer], "novel": {}}
    async with served(world) as http:
        statuses = []
        for scope in ("read", "evaluate"):
            headers = {"authorization": f"Bearer {await world.token(scope)}"}
            statuses.append((await http.post(f"{PATH}/counts", json=body, headers=headers)).status_code)
        assert statuses == [403, 200]
        found = (await http.get(f"{PATH}/flags/a/counts", headers=headers)).json()
    assert found["totals"][0]["evaluations"] == {"NOVEL": 3}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("since=yesterday", "/since"),
        ("since=2020-01-01T00:00:00Z", "/since"),
        ("since=9999-01-01T00:00:00Z", "/since"),
        ("window_seconds=15", "/window_seconds"),
        ("window_seconds=0", "/window_seconds"),
        ("window_seconds=10&since={}", "/window_seconds"),
    ],
)
async def test_a_span_that_makes_no_sense_is_refused(world: World, query: str, pointer: str) -> None:
    await world.put(flag("a"))
    headers = {"authorization": f"Bearer {await world.token('read')}"}
    week = (datetime.now(UTC) - timedelta(days=7)).strftime("%Y-%m-%dT%H:%M:%SZ")
    async with served(world) as http:
        answer = await http.get(f"{PATH}/flags/a/counts?{query.format(week)}", headers=headers)
        assert (answer.status_code, [one["pointer"] for one in answer.json()["errors"]]) == (422, [pointer])
        assert (await http.get(f"{PATH}/flags/b/counts", headers=headers)).status_code == 404
