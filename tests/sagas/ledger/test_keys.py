"""P9 as a table: over the pure core by chance, and every row of it on the database."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as some
from rescind.wire import AdmitResult

from sagas.core import keys
from sagas.core.effects import Status
from sagas.core.keys import TABLE, WRITES, Asker, Recorded, Standing, Verb
from tests.sagas.ledger.world import FLAG, OTHER_FLAG, World

TOKENS = [uuid.UUID(int=number) for number in range(3)]

RECORDS = some.builds(
    Recorded,
    effect_id=some.just(uuid.UUID(int=9)),
    generation=some.integers(1, 3),
    payload_hash=some.sampled_from([b"a", b"b"]),
    flag=some.sampled_from(["f", "g"]),
    is_off=some.booleans(),
    epoch=some.integers(1, 3),
    attributes=some.just({}),
    status=some.sampled_from(list(Status)),
    attempt=some.integers(1, 3),
    token=some.sampled_from(TOKENS),
    begun=some.booleans(),
    tombstoned=some.booleans(),
    undone=some.booleans(),
    lease_left_ms=some.integers(-5, 5),
    start_left_ms=some.integers(-5, 5),
    disposition=some.sampled_from([None, "pending", "waiting", "compensated", "never_happened", "irreversible", "skipped"]),
    compensation=some.sampled_from([None, "due", "held", "none"]),
)


@some.composite
def asks(draw: some.DrawFn) -> tuple[Recorded | None, Asker, Verb]:
    recorded = draw(some.one_of(some.none(), RECORDS))
    who = keys.asker(
        recorded,
        is_dead=draw(some.booleans()),
        flag=draw(some.sampled_from(["f", "g"])),
        payload_hash=draw(some.sampled_from([b"a", b"b"])),
        token=draw(some.sampled_from([None, *TOKENS])),
        is_later=draw(some.booleans()) and recorded is not None,
    )
    return recorded, who, keys.decide(recorded, who)


@given(asks())
def test_nobody_is_let_in_while_another_may_act(case: tuple[Recorded | None, Asker, Verb]) -> None:  # P9, hazard 2
    recorded, who, verb = case
    if recorded is None or verb not in WRITES:
        return
    in_doubt = recorded.status is Status.IN_DOUBT or (recorded.status is Status.ADMITTED and recorded.lease_left_ms <= 0)
    closed = recorded.undone or recorded.tombstoned or recorded.disposition in ("compensated", "irreversible", "skipped")
    if not closed:
        assert not in_doubt
        assert recorded.status is not Status.SUCCEEDED
        if recorded.status is Status.ADMITTED:
            assert (verb, who) == (Verb.RENEW, Asker.SAME_TOKEN)


@given(asks())
def test_the_dead_are_never_let_in(case: tuple[Recorded | None, Asker, Verb]) -> None:  # P8
    _, who, verb = case
    assert (who is Asker.DEAD) == (verb is Verb.KILLED)


@given(asks())
def test_what_is_or_will_be_undone_is_never_replayed(case: tuple[Recorded | None, Asker, Verb]) -> None:  # P9, hazard 4
    recorded, _, verb = case
    if recorded is not None and verb is Verb.REPLAYED:
        assert recorded.status is Status.SUCCEEDED
        assert not recorded.undone
        assert not recorded.tombstoned
        assert recorded.compensation not in ("due", "held")
        assert recorded.disposition not in ("pending", "waiting", "compensated", "irreversible", "skipped")


@given(asks())
def test_only_a_closed_generation_or_a_proven_failure_gives_way_to_the_next(
    case: tuple[Recorded | None, Asker, Verb],
) -> None:  # hazard 4
    recorded, who, verb = case
    if verb is Verb.NEXT:
        assert keys.standing(recorded) in (Standing.UNDONE, Standing.TOMBSTONED, Standing.FAILED)
        assert who is Asker.LATER or keys.standing(recorded) is Standing.FAILED


@given(RECORDS)
def test_another_payload_is_a_conflict_on_every_used_key(recorded: Recorded) -> None:  # P9
    who = keys.asker(recorded, is_dead=False, flag=recorded.flag, payload_hash=b"c", token=recorded.token, is_later=False)
    assert keys.decide(recorded, who) is Verb.CONFLICT


def test_the_table_has_a_row_for_everything_on_record() -> None:
    assert set(TABLE) == set(Standing)


# --- each row on the database ------------------------------------------------------------------------------------------

Prepare = Callable[[World, AdmitResult], Awaitable[None]]


async def _succeeded(world: World, effect: AdmitResult) -> None:
    await world.report(effect, "succeeded", result={"id": "pi_1"})


async def _failed(world: World, effect: AdmitResult) -> None:
    await world.report(effect, "failed", error={"code": "card_declined"})


async def _unknown(world: World, effect: AdmitResult) -> None:
    await world.report(effect, "unknown")


async def _begun(world: World, effect: AdmitResult) -> None:
    await world.report(effect, "begun")


async def _nothing(world: World, effect: AdmitResult) -> None:
    """As it was admitted."""


async def _expired(world: World, effect: AdmitResult) -> None:
    await world.expire(effect, lease=False)


async def _lease_over(world: World, effect: AdmitResult) -> None:
    await world.expire(effect)


async def _rolled_back(world: World, effect: AdmitResult, state: str) -> None:
    """Killed, undone as the state says, settled, and lifted."""
    killed = await world.kill()
    await world.close_set(killed)
    if state != "due":
        await world.dispose(effect, killed, state)
        await world.settle(killed)
    else:
        await world.execute("UPDATE sagas.rollbacks SET state = 'compensating' WHERE id = $1", killed.rollback_id)
        await world.execute("UPDATE sagas.rollback_flags SET enumerated = true WHERE rollback_id = $1", killed.rollback_id)
    await world.lift(force=True)


async def _due(world: World, effect: AdmitResult) -> None:
    await _succeeded(world, effect)
    await _rolled_back(world, effect, "due")


async def _compensated(world: World, effect: AdmitResult) -> None:
    await _succeeded(world, effect)
    await _rolled_back(world, effect, "compensated")


async def _never_happened(world: World, effect: AdmitResult) -> None:
    await _unknown(world, effect)
    await _rolled_back(world, effect, "never_happened")


ROWS = [
    # what is recorded        another asker     same token      other payload   other flag      off variant
    (_nothing,         "in_progress",    "admitted",     "conflict",     "conflict",     "in_progress"),
    (_expired,         "in_progress",    "admitted",     "conflict",     "conflict",     "in_progress"),
    (_begun,           "in_progress",    "in_progress",  "conflict",     "conflict",     "in_progress"),
    (_lease_over,      "in_progress",    "in_progress",  "conflict",     "conflict",     "in_progress"),
    (_unknown,         "in_progress",    "in_progress",  "conflict",     "conflict",     "in_progress"),
    (_succeeded,       "replayed",       "replayed",     "conflict",     "conflict",     "replayed"),
    (_failed,          "admitted",       "admitted",     "conflict",     "admitted",     "admitted"),
    (_due,             "compensated",    "compensated",  "conflict",     "conflict",     "compensated"),
    (_compensated,     "compensated",    "compensated",  "conflict",     "admitted",     "admitted"),
    (_never_happened,  "tombstoned",     "tombstoned",   "conflict",     "admitted",     "admitted"),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].__name__.strip("_"))
@pytest.mark.parametrize("column", range(1, 6), ids=["another", "same_token", "other_payload", "other_flag", "off"])
async def test_a_key_answers_by_what_is_recorded(world: World, row: tuple[Prepare, str], column: int) -> None:  # P9
    prepare, expected = row[0], row[column]
    first = await world.ask("k")
    await prepare(world, first)
    fields: dict[str, object] = [
        {},
        {"token": first.token},
        {"payload": {"amount_cents": 1}},
        {"flag": OTHER_FLAG},
        {"variant": "off"},
    ][column - 1]
    answer = await world.ask("k", **fields)
    assert answer.outcome == expected
    if expected == "replayed":
        assert answer.result == {"id": "pi_1"}
    if expected in ("compensated", "tombstoned"):
        assert answer.result is None
        assert answer.compensation == {_due: "due", _compensated: "done", _never_happened: "none"}[prepare]
    if prepare in (_lease_over, _unknown) and expected == "in_progress":
        assert (answer.effect_status, answer.retry_after_ms) == ("in_doubt", None)
    if prepare is _begun and expected == "in_progress":
        assert 0 < (answer.retry_after_ms or 0) <= 30_000


async def test_a_proven_failure_is_admitted_again_as_the_next_attempt_of_the_same_effect(world: World) -> None:  # P9
    first = await world.ask("k")
    await _failed(world, first)
    second = await world.ask("k", token=first.token)
    assert (second.outcome, second.effect_id, second.attempt) == ("admitted", first.effect_id, 2)
    assert second.token != first.token
    evidence = (await world.row(second))["evidence"]
    assert [(one["what"], one["attempt"], one["token"]) for one in evidence] == [("attempt", 1, first.token)]


async def test_a_repeat_with_the_askers_own_token_gets_the_same_permission(world: World) -> None:  # hazard 1
    token = str(uuid.uuid4())
    first, again = await world.ask("k", token=token), await world.ask("k", token=token)
    assert (first.token, again.token, again.effect_id, again.outcome) == (token, token, first.effect_id, "admitted")
    assert (await world.row(first))["attempt"] == 1
    assert (await world.ask("k", token=str(uuid.uuid4()))).outcome == "in_progress"


async def test_a_repeat_past_the_start_window_gets_a_new_one_unless_the_flag_was_killed(world: World) -> None:  # hazard 1
    first = await world.ask("k")
    await world.expire(first, lease=False)
    before = await world.row(first)
    assert (await world.ask("k", token=first.token)).token == first.token
    assert (await world.row(first))["start_until"] > before["start_until"]
    await world.expire(first, lease=False)
    await world.kill()
    assert (await world.ask("k", token=first.token)).outcome == "killed"


async def test_a_request_of_a_later_epoch_opens_the_next_generation_of_a_compensated_key(world: World) -> None:  # hazard 4
    first = await world.ask("k")
    await _compensated(world, first)
    opened = await world.value("SELECT opened_revision FROM sagas.fences WHERE flag = $1 AND scope_key = ''", FLAG)
    stale = await world.ask("k", revision=[1, opened - 1])
    assert (stale.outcome, stale.compensation) == ("compensated", "done")
    fresh = await world.ask("k", revision=[1, opened], payload={"amount_cents": 7})
    assert fresh.outcome == "admitted"
    assert fresh.effect_id != first.effect_id
    assert (await world.row(fresh))["generation"] == 2
    assert (await world.row(first))["undone"] is True


async def test_a_failure_of_the_old_epoch_is_closed_when_its_key_goes_on(world: World) -> None:  # hazard 4
    first = await world.ask("k")
    await _failed(world, first)
    await world.kill()
    off = await world.ask("k", variant="off")
    assert off.outcome == "admitted"
    assert off.effect_id != first.effect_id
    assert (await world.row(first))["tombstoned"] is True
    late = await world.report(first, "succeeded", result={"id": "pi_late"})
    assert late.outcome == "killed"
    assert (await world.row(first))["status"] == "succeeded"


async def test_a_killed_ask_is_told_what_is_known_of_its_key(world: World) -> None:  # hazard 4
    first = await world.ask("k")
    await _succeeded(world, first)
    held = await world.kill(compensate="hold")
    answer = await world.ask("k")
    assert (answer.outcome, answer.effect_status, answer.result, answer.compensation) == (
        "killed",
        "succeeded",
        {"id": "pi_1"},
        "held",
    )
    await world.execute("UPDATE sagas.rollbacks SET compensate = 'auto', state = 'drained' WHERE id = $1", held.rollback_id)
    assert (await world.ask("k")).compensation == "due"
    await world.dispose(first, held, "compensated")
    assert (await world.ask("k")).compensation == "done"


async def test_what_a_kill_does_not_undo_is_replayed_to_the_old_path(world: World) -> None:  # P9
    first = await world.ask("k")
    await _succeeded(world, first)
    await world.kill(compensate="none")
    answer = await world.ask("k", variant="off")
    assert (answer.outcome, answer.result) == ("replayed", {"id": "pi_1"})


async def test_effects_of_a_kill_lifted_in_grace_are_replayed(world: World) -> None:  # P17
    first = await world.ask("k")
    await _succeeded(world, first)
    await world.kill()
    await world.lift()
    assert (await world.ask("k")).outcome == "replayed"


async def test_of_many_askers_one_is_admitted_whichever_server_they_ask(world: World) -> None:  # P9
    other = await World.open(world.pg)
    for number in range(20):
        answers = await asyncio.gather(*[(world, other)[turn % 2].ask(f"k{number}") for turn in range(12)])
        assert sorted(answer.outcome for answer in answers) == ["admitted", *["in_progress"] * 11]
    await other.close()


async def test_one_number_written_two_ways_is_one_payload(world: World) -> None:
    await world.ask("k", payload={"amount": 1.0, "b": [2.0, {"c": 3}]})
    assert (await world.ask("k", payload={"b": [2, {"c": 3.0}], "amount": 1})).outcome == "in_progress"
    assert (await world.ask("k", payload={"b": [2, {"c": 3.5}], "amount": 1})).outcome == "conflict"
