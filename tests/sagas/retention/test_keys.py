"""# P9: keys outlive history. Each answer of a key stands when the history it came from has gone, until the key itself goes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from rescind.wire import AdmitResult

from runtime.postgres import Postgres
from tests.sagas.ledger.test_proceeded import NAME, OTHER_TOKEN, Away
from tests.sagas.ledger.world import FLAG, OTHER_FLAG, World
from tests.sagas.retention.world import History, LongAgo

RESULT = {"id": "pi_1"}


async def done(world: World, key: str = "k", outcome: str = "succeeded") -> AdmitResult:
    """An effect that was admitted and reported."""
    admitted = await world.ask(key)
    await world.report(admitted, outcome, **({"result": RESULT} if outcome == "succeeded" else {}))
    return admitted


async def gone(history: History, **options: int | None) -> None:
    """Made old and swept."""
    await history.age()
    await history.sweep(**options)
    assert await history.counts("effects") == {"effects": 0}


async def rename(history: History) -> None:
    """What remains bears a name of six hundred days ago."""
    name = LongAgo(600).uuid7()
    for query in ("UPDATE sagas.remains SET id = $1", "UPDATE sagas.keys SET effect_id = $1"):
        await history.value(query, name)


async def undone(world: World, state: str) -> AdmitResult:
    """An effect that a kill undid, and the flag opened again."""
    admitted = await done(world)
    killed = await world.kill()
    await world.close_set(killed)
    await world.dispose(admitted, killed, state)
    await world.settle(killed)
    await world.lift()
    return admitted


async def test_what_succeeded_is_replayed_with_its_result(world: World, history: History) -> None:
    admitted = await done(world)
    await gone(history)
    again = await world.ask("k")
    assert (again.outcome, again.result, again.effect_id) == ("replayed", RESULT, admitted.effect_id)
    assert (again.effect_status, again.attempt) == ("succeeded", 1)


async def test_another_payload_or_flag_is_a_conflict_still(world: World, history: History) -> None:
    await done(world)
    await gone(history)
    assert (await world.ask("k", payload={"amount_cents": 1})).outcome == "conflict"
    assert (await world.ask("k", flag=OTHER_FLAG)).outcome == "conflict"


async def test_what_was_proved_not_done_is_admitted_again_as_an_effect_of_its_own(world: World, history: History) -> None:
    before = await done(world, outcome="failed")
    await gone(history)
    assert (await world.ask("k", payload={"amount_cents": 1})).outcome == "conflict"
    again = await world.ask("k")
    assert (again.outcome, again.effect_id != before.effect_id) == ("admitted", True)
    assert (await world.ask("k")).outcome == "in_progress"
    await world.report(again, result=RESULT)
    assert (await world.ask("k")).outcome == "replayed"


@pytest.mark.parametrize(("state", "word"), [("compensated", "done"), ("irreversible", "none"), ("skipped", "none")])
async def test_what_was_undone_is_compensated_with_its_result_withheld(
    world: World, history: History, state: str, word: str
) -> None:
    await undone(world, state)
    await gone(history)
    again = await world.ask("k")
    assert (again.outcome, again.result, again.compensation) == ("compensated", None, word)
    assert await history.value("SELECT result FROM sagas.remains") is None


async def test_an_evaluation_under_a_later_epoch_opens_the_next_generation(world: World, history: History) -> None:  # hazard 4
    admitted = await undone(world, "compensated")
    await gone(history)
    opened = await history.value("SELECT opened_generation || '.' || opened_revision FROM sagas.fences WHERE flag = $1", FLAG)
    again = await world.ask("k", revision=opened)
    assert (again.outcome, again.effect_id != admitted.effect_id) == ("admitted", True)
    assert await history.value("SELECT generation FROM sagas.keys WHERE key = 'k'") == 2


async def test_a_tombstone_stands_for_ever(world: World, history: History) -> None:
    await undone(world, "never_happened")
    await gone(history)
    again = await world.ask("k")
    assert (again.outcome, again.effect_status) == ("tombstoned", "failed")


async def test_a_closed_fence_says_what_is_known_of_the_key(world: World, history: History) -> None:  # hazard 4
    await done(world)
    await gone(history)
    await world.kill()
    asked = await world.ask("k")
    assert (asked.outcome, asked.effect_status, asked.compensation) == ("killed", "succeeded", "none")


@pytest.mark.parametrize("outcome", [None, "unknown"])
async def test_what_is_in_progress_or_in_doubt_stays_however_old(world: World, history: History, outcome: str | None) -> None:
    admitted = await world.ask("k")
    if outcome:
        await world.report(admitted, outcome)
    await history.age()
    await history.sweep()
    assert await history.counts("effects") == {"effects": 1}
    again = await world.ask("k")
    assert (again.outcome, again.effect_status) == ("in_progress", "in_doubt")


async def test_a_key_goes_400_days_after_its_history_and_not_before(world: World, history: History) -> None:
    await done(world)
    await gone(history, keys_days=400)
    await history.age(399)
    await rename(history)
    await history.sweep(keys_days=400)
    assert (await world.ask("k")).outcome == "replayed"
    await history.age(2)
    await history.sweep(keys_days=400)
    assert await history.counts("keys", "remains") == {"keys": 0, "remains": 0}
    assert (await world.ask("k")).outcome == "admitted"


async def test_a_key_whose_flag_is_under_an_open_rollback_stays(world: World, history: History) -> None:
    await done(world)
    await gone(history, keys_days=400)
    await rename(history)
    await history.age(401)
    killed = await world.kill()
    await history.sweep(keys_days=400)
    assert await history.counts("keys") == {"keys": 1}
    await world.settle(killed)
    await history.sweep(keys_days=400)
    assert await history.counts("keys") == {"keys": 0}


async def test_a_key_that_moved_on_keeps_its_present_generation(world: World, history: History) -> None:
    await done(world, outcome="failed")
    await gone(history, keys_days=400)
    await world.report(await world.ask("k"), result=RESULT)
    await history.value("UPDATE sagas.remains SET id = $1, gone_at = gone_at - interval '401 days'", LongAgo(600).uuid7())
    await history.sweep(history_days=None, keys_days=400)
    assert await history.counts("keys", "remains", "effects") == {"keys": 1, "remains": 0, "effects": 1}
    assert (await world.ask("k")).outcome == "replayed"


async def test_late_news_of_what_has_gone_is_told_so(world: World, history: History) -> None:
    admitted = await done(world)
    await gone(history)
    assert (await world.report(admitted, result=RESULT)).outcome == "unknown_effect"


@pytest.fixture
async def away(pg: Postgres) -> AsyncIterator[Away]:
    """A world in which instances did things by themselves."""
    world = await Away.open(pg)
    assert isinstance(world, Away)
    yield world
    await world.close()


async def test_a_record_that_was_brought_before_is_no_news_when_its_history_has_gone(away: Away, pg: Postgres) -> None:  # P9
    await away.bring()
    await dropped(pg)
    assert (await away.bring()).outcome == "recorded"
    assert await away.rows() == []


async def test_a_record_of_another_attempt_happened_all_the_same(away: Away, pg: Postgres) -> None:  # P11
    await away.bring()
    await dropped(pg)
    assert (await away.bring(token=OTHER_TOKEN)).outcome == "recorded"
    (row,) = await away.rows()
    assert (row["status"], row["id"] != NAME) == ("succeeded", True)
    assert await away.key_of() == NAME, "the key still answers for the first"


async def test_a_record_under_a_key_that_was_proved_not_done_takes_the_key(away: Away, pg: Postgres) -> None:  # P9
    await away.bring(outcome="failed")
    admitted = await away.ask("k2")
    await away.report(admitted, "failed")
    await dropped(pg)
    assert (await away.bring("k2", token=OTHER_TOKEN)).outcome == "recorded"
    (row,) = await away.rows("k2")
    assert (row["generation"], await away.key_of("k2")) == (2, row["id"])


async def dropped(pg: Postgres) -> None:
    """All that is over, gone."""
    history = History(pg)
    await history.age()
    await history.drop()
    assert await history.counts("effects") == {"effects": 0}
