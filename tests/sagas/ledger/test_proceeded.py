"""Effects that were begun without the server, brought to the ledger: taken in whatever the key says, once, and never lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from rescind.wire import AdmitResult, ProceededRequest, ReportResult, effect_name

from runtime.clock import Entropy
from runtime.postgres import Postgres
from tests.sagas.ledger.world import ENVIRONMENT, FLAG, OTHER_FLAG, World

TOKEN = "0199a1b2-c3d4-4000-8000-000000000001"
OTHER_TOKEN = "0199a1b2-c3d4-4000-8000-000000000002"


class Away(World):
    """A world in which instances did things by themselves."""

    async def bring(self, key: str = "k", outcome: str | None = "succeeded", **fields: Any) -> ReportResult:
        """One such effect, as an instance delivers it; 60 s old."""
        told = {"token": fields.pop("token", TOKEN), **fields.pop("request", {})}
        document = {
            "effect_id": str(effect_name(ENVIRONMENT, "payment.capture", key)),
            "request": self.item(key, **told),
            "epoch": 1,
            "at": 1_000.0,
            "ended_at": 1_010.0,
            "instance": "far",
            "outcome": outcome,
            "result": {"id": "pi_1"} if outcome == "succeeded" else None,
            **fields,
        }
        request = ProceededRequest(effects=[document], instance="heir", now=1_060.0)
        (result,) = (await self.ledger.proceeded(ENVIRONMENT, request)).results
        return result

    async def rows(self, key: str = "k") -> list[dict[str, Any]]:
        """The effects of a key, in the order in which they came."""
        async with self.pg.connection() as connection:
            found = await connection.fetch(
                "SELECT *, extract(EPOCH FROM now() - admitted_at) AS age,"
                " extract(EPOCH FROM completed_at - admitted_at) AS took"
                " FROM sagas.effects WHERE key = $1 ORDER BY generation, proceeded_at NULLS FIRST, id",
                key,
            )
        return [dict(row) for row in found]

    async def statuses(self, key: str = "k") -> list[str]:
        """Of the effects of a key."""
        return [row["status"] for row in await self.rows(key)]

    async def key_of(self, key: str = "k") -> UUID:
        """The effect of the key's present generation."""
        found = await self.value("SELECT effect_id FROM sagas.keys WHERE key = $1", key)
        assert isinstance(found, UUID)
        return found


NAME = effect_name(ENVIRONMENT, "payment.capture", "k")


@pytest.fixture
async def away(pg: Postgres) -> AsyncIterator[Away]:
    world = await Away.open(pg)
    assert isinstance(world, Away)
    yield world
    await world.close()


async def test_what_an_instance_did_is_on_record_as_it_was_when_it_was_done(away: Away) -> None:  # P10, P11
    answer = await away.bring(request={"subject": "ann", "saga": {"name": "order", "version": "1", "id": "1"}})
    assert answer.outcome == "recorded"
    (row,) = await away.rows()
    assert (row["id"], row["status"], row["result"], row["instance_id"]) == (NAME, "succeeded", {"id": "pi_1"}, "far")
    assert (row["subject"], row["saga_instance"], row["epoch"], row["begun"]) == ("ann", "1", 1, True)
    assert (55 < row["age"] < 120, round(row["took"])) == (True, 10)
    assert row["proceeded_at"] == row["admitted_at"]
    replayed = await away.ask("k")
    assert (replayed.outcome, replayed.result) == ("replayed", {"id": "pi_1"})


async def test_bringing_it_again_changes_nothing(away: Away) -> None:  # P9
    for _ in range(3):
        assert (await away.bring()).outcome == "recorded"
    assert await away.statuses() == ["succeeded"]
    for _ in range(3):
        await away.bring("doubt", "unknown")
    await away.bring("doubt", "succeeded")
    assert await away.statuses("doubt") == ["succeeded"]


@pytest.mark.parametrize("is_settled", [False, True])
async def test_after_a_kill_it_joins_the_set_and_reopens_what_had_settled(away: Away, is_settled: bool) -> None:  # P11, P12
    killed = await away.kill()
    await away.close_set(killed)
    if is_settled:
        await away.settle(killed)
    assert (await away.bring()).outcome == "killed"
    assert await away.value("SELECT count(*) FROM sagas.late WHERE rollback_id = $1", killed.rollback_id) == 1
    reopened = await away.value("SELECT reopened_count FROM sagas.rollbacks WHERE id = $1", killed.rollback_id)
    assert reopened == (1 if is_settled else 0)


async def test_it_belongs_to_the_epoch_its_instance_knew_and_never_to_one_that_is_closed(away: Away) -> None:  # P8, P12
    killed = await away.kill()
    await away.bring("far ahead", epoch=99)
    await away.bring("not told", epoch=0)
    await away.close_set(killed)
    await away.settle(killed)
    await away.lift(force=True)
    await away.bring("before the kill", epoch=1)
    await away.bring("after the lift", epoch=3)
    epochs = {key: (await away.rows(key))[0]["epoch"] for key in ("far ahead", "not told", "before the kill", "after the lift")}
    assert epochs == {"far ahead": 1, "not told": 1, "before the kill": 1, "after the lift": 3}
    late = await away.value("SELECT array_agg(effect_id) FROM sagas.late WHERE rollback_id = $1", killed.rollback_id)
    assert late == [effect_name(ENVIRONMENT, "payment.capture", "before the kill")]


async def test_effects_served_the_off_variant_are_taken_in_and_in_no_set(away: Away) -> None:  # P8
    killed = await away.kill()
    await away.close_set(killed)
    assert (await away.bring(request={"variant": "off"})).outcome == "recorded"
    assert (await away.rows())[0]["is_off"]
    assert await away.value("SELECT count(*) FROM sagas.late") == 0


async def test_an_admission_whose_answer_was_lost_is_the_same_effect(away: Away) -> None:  # P9
    admitted = await away.ask("k", token=TOKEN, by_key=True)
    assert (admitted.outcome, admitted.effect_id) == ("admitted", str(NAME))
    await away.bring()
    (row,) = await away.rows()
    assert (row["id"], row["status"], row["attempt"], row["proceeded_at"]) == (NAME, "succeeded", 1, None)


async def test_the_same_done_by_two_is_one_effect_and_another_reference_is_a_second(away: Away) -> None:  # P9, P13
    await away.bring()
    await away.bring(token=OTHER_TOKEN)
    assert await away.statuses() == ["succeeded"]
    for _ in range(2):
        await away.bring(token=str(Entropy().uuid7()), result={"id": "pi_1", "at": 9})
        await away.bring(token="0199a1b2-c3d4-4000-8000-000000000003", result={"id": "pi_2"})
    rows = await away.rows()
    assert sorted(row["result"]["id"] for row in rows) == ["pi_1", "pi_2"]
    assert all(row["proceeded_at"] for row in rows)


async def test_doubt_about_what_was_proven_not_done_is_doubt(away: Away) -> None:  # P10
    admitted = await away.ask("k", by_key=True)
    await away.report(admitted, "failed")
    await away.bring(outcome="unknown")
    (row,) = await away.rows()
    assert (row["status"], row["attempt"], row["id"]) == ("in_doubt", 2, NAME)


async def test_under_another_name_it_is_an_effect_of_its_own_beside(away: Away) -> None:  # P9: the key had a server's name
    first = await away.ask("k")
    await away.report(first, "succeeded", result={"id": "pi_0"})
    await away.bring()
    assert await away.statuses() == ["succeeded", "succeeded"]
    assert await away.key_of() == UUID(first.effect_id or "")
    assert NAME in {row["id"] for row in await away.rows()}
    await away.bring()
    assert len(await away.rows()) == 2


async def test_another_payload_or_flag_happened_too(away: Away) -> None:  # P9, P11: a conflict loses no news
    await away.bring()
    await away.bring(token=OTHER_TOKEN, request={"payload": {"amount_cents": 1}}, result={"id": "pi_2"})
    await away.bring(token=str(Entropy().uuid7()), request={"flag": OTHER_FLAG}, result={"id": "pi_3"})
    rows = await away.rows()
    assert sorted(row["result"]["id"] for row in rows) == ["pi_1", "pi_2", "pi_3"]
    assert {row["flag"] for row in rows} == {FLAG, OTHER_FLAG}
    assert await away.key_of() == NAME


@pytest.mark.parametrize("state", ["compensated", "never_happened"])
async def test_a_closed_generation_of_the_key_loses_no_news(away: Away, state: str) -> None:  # P9, P11
    admitted = await away.ask("k", by_key=True)
    await away.report(admitted, "succeeded", result={"id": "pi_0"})
    killed = await away.kill()
    await away.close_set(killed)
    await away.dispose(admitted, killed, state)
    await away.settle(killed)
    await away.lift(force=True)
    await away.bring(epoch=3)
    rows = await away.rows()
    assert [row["epoch"] for row in rows] == [1, 3]
    assert await away.key_of() == rows[1]["id"] != NAME
    await away.bring(epoch=3)
    assert len(await away.rows()) == 2


async def test_a_start_that_a_tombstone_would_have_refused_is_undone(away: Away) -> None:  # P11, P16
    admitted = await away.ask("k", by_key=True)
    killed = await away.kill()
    await away.close_set(killed)
    await away.report(admitted, "not_started")
    await away.dispose(admitted, killed, "never_happened")
    await away.settle(killed)
    assert (await away.bring()).outcome == "killed"
    (row,) = await away.rows()
    assert (row["status"], row["tombstoned"]) == ("succeeded", True)
    assert await away.value("SELECT reopened_count FROM sagas.rollbacks WHERE id = $1", killed.rollback_id) == 1


async def test_what_never_began_leaves_nothing_and_gives_a_lost_admission_back(away: Away) -> None:  # P8
    await away.bring(outcome="not_started")
    assert await away.rows() == []
    await away.ask("k", token=TOKEN, by_key=True)
    await away.bring(outcome="not_started")
    (row,) = await away.rows()
    assert (row["status"], row["error"]) == ("failed", {"code": "given_back"})


async def test_what_cannot_be_kept_fails_alone(away: Away) -> None:
    sound = {"effect_id": str(NAME), "request": {**away.item("k"), "token": TOKEN}, "outcome": "succeeded"}
    unknown = {**sound, "request": {**away.item("u", flag="nowhere"), "token": TOKEN}}
    bad: list[Any] = [{**sound, "effect_id": "x"}, {"request": 1}, 7, unknown]
    answer = await away.ledger.proceeded(ENVIRONMENT, ProceededRequest(effects=[*bad, sound]))
    assert [one.outcome for one in answer.results] == ["invalid"] * 4 + ["recorded"]
    assert [(one.error or {}).get("pointer") for one in answer.results[:2]] == ["/effect_id", "/effect_id"]
    assert (answer.results[3].error or {})["code"] == "unknown_flag"


async def test_a_repeat_by_key_keeps_its_name_and_the_next_generation_has_another(away: Away) -> None:  # hazard 4
    first = await away.ask("k", by_key=True)
    await away.report(first, "succeeded", result=1)
    killed = await away.kill()
    await away.close_set(killed)
    await away.dispose(first, killed, "compensated")
    await away.settle(killed)
    opened = await away.lift(force=True)
    again: AdmitResult = await away.ask("k", by_key=True, revision=f"{opened[0]}.{opened[1]}")
    assert (first.effect_id, again.outcome) == (str(NAME), "admitted")
    assert again.effect_id != first.effect_id
