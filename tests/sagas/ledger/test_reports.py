"""What becomes of an effect by the news of its body, and late news after a kill: P10, P11, hazards 1 to 3."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from rescind.wire import ReportRequest, Revision

from sagas.core.effects import COLUMNS, MACHINE, News, State, Status, move, state_of
from tests.sagas.ledger.world import ENVIRONMENT, FLAG, World


class EffectMachine(RuleBasedStateMachine):
    """One effect under any order of news: success is never taken back, and no news of a body is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.status = Status.ADMITTED
        self.begun = False
        self.given_back = False
        self.succeeded = False
        self.evidence: list[News] = []

    @rule(news=some.sampled_from(list(News)))
    def report(self, news: News) -> None:
        code = "given_back" if self.given_back and self.status is Status.FAILED else None
        state = state_of(self.status, begun=self.begun, error_code=code, is_current=True)
        step = move(state, news)
        if news is News.SUCCEEDED:
            assert step.status is Status.SUCCEEDED or self.status is Status.SUCCEEDED
            self.succeeded = True
        if news is News.FAILED and self.status is Status.SUCCEEDED:
            assert step.evidence
        if step.status is not None:
            self.given_back = news is News.NOT_STARTED
            self.status = step.status
        self.begun = self.begun or step.begun
        if step.evidence:
            self.evidence.append(news)

    @invariant()
    def success_stands(self) -> None:
        assert not self.succeeded or self.status is Status.SUCCEEDED

    @invariant()
    def nothing_begun_is_given_back(self) -> None:
        assert not (self.begun and self.given_back and self.status is Status.FAILED)


TestTheEffectMachine = EffectMachine.TestCase


def test_every_state_answers_all_news() -> None:
    assert set(MACHINE) == set(State)
    assert set(COLUMNS) == set(News)


@pytest.mark.parametrize(
    ("outcome", "status"), [("succeeded", "succeeded"), ("failed", "failed"), ("unknown", "in_doubt"), ("begun", "admitted")]
)
async def test_a_report_is_recorded(world: World, outcome: str, status: str) -> None:  # P10
    effect = await world.ask()
    answer = await world.report(effect, outcome, result={"id": "pi_1"}, error={"code": "x"})
    row = await world.row(effect)
    assert (answer.outcome, row["status"]) == ("recorded", status)
    assert (row["completed_at"] is not None) == (outcome == "succeeded")
    assert row["result"] == ({"id": "pi_1"} if outcome == "succeeded" else None)
    assert (await world.report(effect, outcome, result={"id": "pi_1"}, error={"code": "x"})).outcome == "recorded"


async def test_a_success_is_never_taken_back(world: World) -> None:  # P10
    effect = await world.ask()
    await world.report(effect, "succeeded", result={"id": "pi_1"})
    assert (await world.report(effect, "failed")).outcome == "evidence"
    assert (await world.report(effect, "succeeded", result={"id": "pi_2"})).outcome == "evidence"
    row = await world.row(effect)
    assert (row["status"], row["result"]) == ("succeeded", {"id": "pi_1"})
    assert [one["outcome"] for one in row["evidence"]] == ["failed", "succeeded"]
    assert row["evidence"][1]["result"] == {"id": "pi_2"}


async def test_an_extension_moves_the_lease(world: World) -> None:  # P8
    effect = await world.ask()
    before = await world.row(effect)
    await world.report(effect, "extend", lease_seconds=300)
    assert (await world.row(effect))["lease_until"] > before["lease_until"]


async def test_a_permission_given_back_can_be_asked_for_again(world: World) -> None:  # P10
    effect = await world.ask("k")
    await world.report(effect, "not_started")
    again = await world.ask("k")
    assert (again.outcome, again.effect_id, again.attempt) == ("admitted", effect.effect_id, 2)


async def test_a_permission_given_back_under_a_killed_flag_is_closed_for_ever(world: World) -> None:  # P16
    effect = await world.ask("k")
    killed = await world.kill()
    await world.report(effect, "not_started")
    row = await world.row(effect)
    assert (row["status"], row["tombstoned"]) == ("failed", True)
    await world.settle(killed)
    await world.lift()
    assert (await world.ask("k")).outcome == "tombstoned"


async def test_an_outcome_reported_after_the_set_was_closed_arms_its_rollback(world: World) -> None:  # P11, hazard 3
    effect = await world.ask()
    killed = await world.kill()
    await world.close_set(killed)
    assert (await world.report(effect, "succeeded", result={"id": "pi_1"})).outcome == "killed"
    late = await world.value("SELECT count(*) FROM sagas.late WHERE effect_id = $1", uuid.UUID(effect.effect_id or ""))
    assert late == 1


async def test_an_outcome_reported_before_the_set_is_closed_is_left_to_the_enumeration(world: World) -> None:  # hazard 3
    effect = await world.ask()
    await world.kill()
    assert (await world.report(effect, "succeeded", result={"id": "pi_1"})).outcome == "killed"
    assert await world.value("SELECT count(*) FROM sagas.late") == 0


async def test_a_success_after_the_rollback_settled_reopens_it(world: World) -> None:  # P11, hazard 12
    effect = await world.ask()
    killed = await world.kill()
    await world.close_set(killed)
    await world.dispose(effect, killed, "never_happened")
    await world.execute("INSERT INTO sagas.members VALUES ($1, $2)", killed.rollback_id, uuid.UUID(effect.effect_id or ""))
    await world.settle(killed)
    assert (await world.report(effect, "succeeded", result={"id": "pi_1"})).outcome == "killed"
    state = await world.value("SELECT state FROM sagas.rollbacks WHERE id = $1", killed.rollback_id)
    reopened = await world.value("SELECT reopened_count FROM sagas.rollbacks WHERE id = $1", killed.rollback_id)
    assert (state, reopened) == ("compensating", 1)


async def test_a_report_waits_for_the_drain_barrier_and_a_barrier_for_reports(world: World) -> None:  # hazard 3
    effect = await world.ask()
    killed = await world.kill()
    connection = await world.pg.dedicated()
    await connection.execute("BEGIN")
    await connection.execute("SELECT pg_advisory_xact_lock(sagas.lock_key('production', $1))", FLAG)
    report = asyncio.create_task(world.report(effect, "succeeded", result={"id": "pi_1"}))
    await world.execute("SELECT pg_sleep(0.05)")
    assert not report.done()
    await connection.execute(
        "UPDATE sagas.rollback_flags SET closed_at = clock_timestamp() WHERE rollback_id = $1", killed.rollback_id
    )
    await connection.execute("COMMIT")
    await connection.close()
    assert (await report).outcome == "killed"
    assert await world.value("SELECT count(*) FROM sagas.late") == 1


async def test_a_result_too_large_to_keep_does_not_lose_the_outcome(world: World) -> None:  # P11
    effect = await world.ask()
    answer = await world.report(effect, "succeeded", result={"text": "x" * 70_000})
    assert (answer.outcome, (answer.error or {})["pointer"]) == ("recorded", "/result")
    row = await world.row(effect)
    assert (row["status"], row["result"]) == ("succeeded", {"rescind.dropped_bytes": 70_011})


async def test_a_nul_in_a_result_does_not_lose_the_outcome(world: World) -> None:  # P11
    effect = await world.ask()
    assert (await world.report(effect, "succeeded", result={"text": "a\0b"})).outcome == "recorded"
    assert (await world.row(effect))["result"] == {"text": "a\ufffdb"}


async def test_an_escaped_backslash_before_u0000_is_no_nul(world: World) -> None:
    text = "in JSON a NUL is written \\u0000"
    effect = await world.ask(payload={"text": text}, attributes={"text": text})
    await world.report(effect, "succeeded", result={"text": text})
    row = await world.row(effect)
    assert (row["payload"], row["attributes"], row["result"]) == ({"text": text}, {"text": text}, {"text": text})
    refused = await world.ask(payload={"text": "\\" + chr(0)})
    assert (refused.error or {})["pointer"] == "/payload"


async def test_an_outcome_that_cannot_be_written_does_not_hold_up_the_others(world: World) -> None:  # P11
    effects = await world.admit(*(world.item() for _ in range(20)))
    await world.execute("ALTER TABLE sagas.effects ADD CHECK (coalesce(result ->> 'id', '') <> 'poison')")
    reports = [
        {"effect_id": one.effect_id, "token": one.token, "outcome": "succeeded", "result": {"id": "poison" if n == 7 else "pi"}}
        for n, one in enumerate(effects)
    ]
    answer = await world.ledger.report(ENVIRONMENT, ReportRequest(reports=reports))
    assert [one.outcome for one in answer.results] == ["recorded"] * 7 + ["invalid"] + ["recorded"] * 12
    assert (answer.results[7].error or {})["code"] == "cannot_be_kept"
    assert (await world.row(effects[7]))["status"] == "admitted"


async def test_a_report_of_the_unknown_says_so(world: World) -> None:
    effect = await world.ask()
    stranger = type(effect)(outcome="admitted", effect_id=effect.effect_id, token=str(uuid.uuid4()))
    assert (await world.report(stranger, "succeeded")).outcome == "invalid"
    assert (await world.row(effect))["status"] == "admitted"
    nobody = type(effect)(outcome="admitted", effect_id=str(uuid.uuid4()), token=effect.token)
    assert (await world.report(nobody)).outcome == "unknown_effect"
    assert (await world.report(effect, "done")).outcome == "invalid"


async def test_an_acknowledged_kill_gives_back_every_permission_not_begun(world: World) -> None:  # hazard 1
    begun, waiting, done, elsewhere = (await world.ask(), await world.ask(), await world.ask(), await world.ask(instance="i-2"))
    off = await world.ask(variant="off")
    await world.report(done, "succeeded", result={})
    killed = await world.kill()
    await world.ledger.acknowledge("production", "i-1", [begun.effect_id or "", "not an id"], Revision(*killed.revision))
    rows = [await world.row(one) for one in (begun, waiting, done, elsewhere, off)]
    assert [(row["status"], row["begun"], row["tombstoned"]) for row in rows] == [
        ("admitted", True, False),
        ("failed", False, True),
        ("succeeded", True, False),
        ("admitted", False, False),
        ("admitted", False, False),
    ]
    assert (await world.report(waiting, "succeeded", result={"id": "it began all the same"})).outcome == "killed"
    assert (await world.row(waiting))["status"] == "succeeded"


async def test_an_instance_that_has_not_heard_of_a_kill_gives_nothing_back_for_it(world: World) -> None:  # hazard 1
    waiting = await world.ask()
    killed = await world.kill()
    generation, n = killed.revision
    await world.ledger.acknowledge("production", "i-1", [], Revision(generation, n - 1))
    assert (await world.row(waiting))["status"] == "admitted"
    await world.ledger.acknowledge("production", "i-1", [], Revision(generation, n))
    assert (await world.row(waiting))["status"] == "failed"


async def test_who_reports_in_doubt_keeps_no_lease(world: World) -> None:  # P16
    effect = await world.ask()
    await world.report(effect, "unknown")
    row = await world.row(effect)
    assert row["status"] == "in_doubt"
    assert row["lease_until"] <= datetime.now(UTC)


async def test_a_narrowed_kill_takes_back_only_permissions_in_its_scope(world: World) -> None:  # hazards 1 and 9
    eu, us = await world.admit(world.item(attributes={"region": "eu"}), world.item(attributes={"region": "us"}))
    killed = await world.kill(scope={"region": "eu"})
    await world.ledger.acknowledge("production", "i-1", [], Revision(*killed.revision))
    assert [(await world.row(one))["tombstoned"] for one in (eu, us)] == [True, False]
