"""The line to PostgreSQL is cut at every message of an admission and of a report: nothing acknowledged is lost, nothing is
half applied, and whoever asks again is recognised (P9, P10, hazard 6)."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from rescind.wire import AdmitResult, ReportResult

from runtime.clock import Clock, Entropy
from runtime.errors import OutcomeUnknown, Unavailable
from runtime.postgres import Postgres
from sagas.ledger import Ledger
from tests.sagas.ledger.cutting import Cutter
from tests.sagas.ledger.world import World
from tests.waiting import until

MESSAGES_MAX = 40


@contextlib.asynccontextmanager
async def through(cutter: Cutter, pg: Postgres) -> AsyncIterator[World]:
    """A ledger whose connections lead through the cutter."""
    postgres = await Postgres.open(await cutter.open(), application_name="cut", wait_seconds=10)
    ledger = Ledger(postgres, Clock(), Entropy(), writers=1)
    await ledger.start()
    try:
        yield World(pg, ledger)
    finally:
        cutter.disarm()
        await ledger.stop()
        await postgres.close()
        await cutter.close()


Scene = Callable[[World, str], Awaitable[dict[str, Any]]]


async def _first(world: World, key: str) -> dict[str, Any]:
    """A key never used."""
    return {}


async def _again(world: World, key: str) -> dict[str, Any]:
    """A key whose attempt is proven to have failed."""
    await world.report(await world.ask(key), "failed", error={"code": "declined"})
    return {}


async def _next(world: World, key: str) -> dict[str, Any]:
    """A key whose generation is closed, asked for by the old path."""
    effect = await world.ask(key)
    killed = await world.kill()
    await world.report(effect, "not_started")
    await world.settle(killed)
    await world.lift()
    return {"variant": "off"}


@pytest.mark.parametrize("loses_answer", [False, True], ids=["message lost", "answer lost"])
@pytest.mark.parametrize("scene", [_first, _again, _next], ids=["first", "again", "next"])
async def test_an_admission_cut_anywhere_is_whole_or_nothing(
    world: World, pg: Postgres, scene: Scene, loses_answer: bool
) -> None:  # P10, hazard 6
    cuts = 0
    for message in range(1, MESSAGES_MAX):
        cutter, key, token = Cutter(pg.url), f"k{message}", str(uuid.uuid4())
        fields = await scene(world, key)
        before = await _rows(world, key)
        async with through(cutter, pg) as cut:
            await cut.ask("warm", variant="off")
            cutter.arm(message, loses_answer=loses_answer)
            answer: AdmitResult | None = None
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                answer = await cut.ask(key, token=token, **fields)
            has_cut = cutter.has_cut
        await until(lambda: _is_quiet(world))
        cuts += has_cut
        assert (answer is None) == has_cut
        after = await _rows(world, key)
        assert after in (before, _with_attempt(before, token, scene)), "half applied"
        if answer is not None:
            assert after != before, "admitted and not on record"
        repeated = await world.ask(key, token=token, **fields)
        assert (repeated.outcome, repeated.token) == ("admitted", token)
        assert await _rows(world, key) == _with_attempt(before, token, scene), "a repeat was not recognised"
        if not has_cut:
            break
    assert cuts >= 4
    assert cuts < MESSAGES_MAX - 1, "the admission never came to its end"


def _with_attempt(before: list[tuple[Any, ...]], token: str, scene: Scene) -> list[tuple[Any, ...]]:
    """What the key's rows are once the ask was admitted, once."""
    if scene is _again:
        return [(1, 2, "admitted", token, True)]
    return [*[(*row[:4], False) for row in before], (len(before) + 1, 1, "admitted", token, True)]


async def _rows(world: World, key: str) -> list[tuple[Any, ...]]:
    """Every effect of a key, and whether it is the one that the key names."""
    async with world.pg.connection() as connection:
        rows = await connection.fetch(
            "SELECT e.generation, e.attempt, e.status, e.token::text, k.effect_id IS NOT NULL AS named FROM sagas.effects e"
            " LEFT JOIN sagas.keys k ON k.effect_id = e.id WHERE e.key = $1 ORDER BY e.generation",
            key,
        )
        orphans = await connection.fetchval(
            "SELECT count(*) FROM sagas.keys k WHERE NOT EXISTS (SELECT FROM sagas.effects e WHERE e.id = k.effect_id)"
        )
    assert orphans == 0
    return [tuple(row) for row in rows]


async def _is_quiet(world: World) -> bool:
    """The cut connections' backends are gone, with whatever they held."""
    return not await world.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cut'")


@pytest.mark.parametrize("loses_answer", [False, True], ids=["message lost", "answer lost"])
async def test_a_report_cut_anywhere_is_whole_or_nothing(world: World, pg: Postgres, loses_answer: bool) -> None:  # P11
    cuts = 0
    for message in range(1, MESSAGES_MAX):
        effect = await world.ask(f"k{message}")
        killed = await world.kill()
        await world.close_set(killed)
        cutter = Cutter(pg.url)
        async with through(cutter, pg) as cut:
            await cut.report(await world.ask(f"warm{message}", variant="off"))
            cutter.arm(message, loses_answer=loses_answer)
            answer: ReportResult | None = None
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                answer = await cut.report(effect, "succeeded", result={"id": "pi_1"})
            has_cut = cutter.has_cut
        await until(lambda: _is_quiet(world))
        cuts += has_cut
        status, late = (await world.row(effect))["status"], await _late(world, effect)
        assert (status, late) in (("admitted", 0), ("succeeded", 1)), "recorded and not armed"
        if answer is not None:
            assert status == "succeeded"
        assert (await world.report(effect, "succeeded", result={"id": "pi_1"})).outcome == "killed"
        assert ((await world.row(effect))["status"], await _late(world, effect)) == ("succeeded", 1)
        await world.settle(killed)
        await world.lift(force=True)
        if not has_cut:
            break
    assert 5 <= cuts < MESSAGES_MAX - 1


async def _late(world: World, effect: AdmitResult) -> int:
    count: int = await world.value("SELECT count(*) FROM sagas.late WHERE effect_id = $1", uuid.UUID(effect.effect_id or ""))
    return count


async def test_a_writer_whose_backend_is_killed_comes_back(world: World) -> None:  # P10
    assert (await world.ask()).outcome == "admitted"
    await world.value(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )

    async def asks() -> bool:
        try:
            return (await world.ask()).outcome == "admitted"
        except (Unavailable, OutcomeUnknown):
            return False

    await until(asks)


async def test_a_stopped_ledger_says_so_and_a_started_one_goes_on(world: World) -> None:
    first = await world.ask("k")
    await world.ledger.stop()
    with pytest.raises(Unavailable):
        await world.ask("k2")
    await world.ledger.start()
    assert (await world.ask("k", token=first.token)).token == first.token


async def test_one_unwritable_item_does_not_fail_its_neighbours(world: World) -> None:
    results = await world.admit(world.item("good"), world.item("bad", payload={"n": 1e400}), world.item("fine"))
    assert [result.outcome for result in results][::2] == ["admitted", "admitted"]
