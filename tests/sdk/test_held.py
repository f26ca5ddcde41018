"""Outcomes that the server has not got yet: none of them jams the others, and none is lost (P11)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import msgspec
import pytest
import rescind
from rescind.batcher import BODY_BYTES_MAX, Batcher
from rescind.clock import Clock
from rescind.errors import ApiError, Unreachable
from rescind.held import Held, sendable, size_of
from rescind.journal import Journal, read_lines
from rescind.wire import EffectReport, ReportResult

from tests.sdk.conftest import FLAG, Site, capture
from tests.waiting import until


def report(name: str, result: object = None) -> EffectReport:
    return EffectReport(effect_id=name, token="t", outcome="succeeded", result=result)


class Door:
    """What a server does with a batch: refuses it whole for what is in it, or takes it."""

    def __init__(self, refuse: Callable[[list[EffectReport]], Exception | None]) -> None:
        self.refuse = refuse
        self.taken: list[str] = []
        self.sizes: list[int] = []

    async def __call__(self, reports: list[EffectReport]) -> list[ReportResult]:
        await asyncio.sleep(0)
        self.sizes.append(sum(map(size_of, reports)))
        if error := self.refuse(reports):
            raise error
        self.taken += [one.effect_id for one in reports]
        return [ReportResult(outcome="invalid" if one.result == "invalid" else "recorded") for one in reports]


class Hasty(Clock):
    """Waits for nothing between two tries."""

    def random(self) -> float:
        return 0.0


@asynccontextmanager
async def holding(door: Door, journal: Journal, *reports: EffectReport) -> AsyncIterator[Held]:
    held = Held(door, Hasty())
    await held.open(journal)
    for one in reports:
        await held.hold(one)
    delivering = asyncio.create_task(held.run())
    yield held
    delivering.cancel()
    await held.close()


async def test_an_outcome_that_is_refused_for_good_is_set_aside_and_the_others_go_on(tmp_path: Path) -> None:  # P11
    def refuse(reports: list[EffectReport]) -> Exception | None:
        return ApiError(413, "too_large", "no") if any(one.result == "poison" for one in reports) else None

    journal, door = Journal(tmp_path, "i"), Door(refuse)
    reports = [report(str(number), {77: "poison", 99: "invalid"}.get(number)) for number in range(300)]
    async with holding(door, journal, *reports) as held:
        await until(lambda: len(held) == 0)
        assert sorted(door.taken, key=int) == [str(number) for number in range(300) if number != 77]
        assert (held.refused_count, held.refused_place) == (2, str(tmp_path / "i.refused"))
        aside = read_lines((tmp_path / "i.refused").read_bytes())
        assert sorted(one.effect_id for one in aside) == ["77", "99"]
        await until(lambda: (tmp_path / "i.journal").read_bytes() == b"")


@pytest.mark.parametrize("error", [ApiError(500, "internal", "it broke"), Unreachable("it ended")], ids=["500", "unreachable"])
async def test_an_outcome_on_which_the_server_breaks_waits_behind_the_others(tmp_path: Path, error: Exception) -> None:  # P11
    door = Door(lambda reports: error if any(one.effect_id == "7" for one in reports) else None)
    async with holding(door, Journal(tmp_path, "i"), *(report(str(number)) for number in range(20))) as held:
        await until(lambda: len(door.taken) == 19)
        assert (len(held), held.refused_count) == (1, 0)
        door.refuse = lambda reports: None
        await until(lambda: len(held) == 0)


async def test_nothing_is_set_aside_for_a_token_that_was_withdrawn(tmp_path: Path) -> None:  # P11
    door = Door(lambda reports: ApiError(401, "unauthorized", "no"))
    async with holding(door, Journal(tmp_path, "i"), *(report(str(number)) for number in range(5))) as held:
        await until(lambda: len(door.sizes) > 20)
        assert (len(held), held.refused_count) == (5, 0)
        door.refuse = lambda reports: None
        await until(lambda: len(held) == 0)


async def test_batches_are_bounded_by_bytes(tmp_path: Path) -> None:  # P11
    door = Door(lambda reports: None)
    reports = [report(str(number), "x" * 60_000) for number in range(256)]
    async with holding(door, Journal(tmp_path, "i"), *reports) as held:
        await until(lambda: len(held) == 0)
    batcher: Batcher[EffectReport, ReportResult] = Batcher(door, size_of)
    answers = await asyncio.gather(*(batcher.submit(one).future for one in reports))
    await batcher.close()
    assert len(answers) == 256
    assert max(door.sizes) <= BODY_BYTES_MAX
    assert len(door.sizes) < 20


async def test_a_call_refused_for_what_is_in_it_is_refused_alone() -> None:
    door = Door(lambda reports: ApiError(422, "invalid", "no") if any(one.effect_id == "7" for one in reports) else None)
    batcher: Batcher[EffectReport, ReportResult] = Batcher(door, size_of)
    answers = await asyncio.gather(
        *(batcher.submit(report(str(number))).future for number in range(100)), return_exceptions=True
    )
    await batcher.close()
    assert [number for number, answer in enumerate(answers) if isinstance(answer, ApiError)] == [7]


def test_a_result_that_no_request_carries_does_not_lose_the_outcome() -> None:  # P11
    small = report("1", {"id": "pi_1"})
    assert sendable(small) is small
    assert sendable(report("1", "x" * 9_000_000)) == report("1", {"rescind.dropped_bytes": 9_000_002})


def test_what_is_written_while_a_sibling_adopts_is_not_lost(tmp_path: Path) -> None:  # P11
    owner, heir = Journal(tmp_path, "owner"), Journal(tmp_path, "heir")
    owner.append([report("1")])
    owner.close(delivered=False)
    assert heir.adopt() == [report("1")]
    owner.append([report("2")])  # an effect that ended after its client was closed
    assert heir.adopt() == [report("2")]
    assert heir.adopt() == []
    heir.close(delivered=False)
    again = Journal(tmp_path, "heir")
    assert again.adopt() == [report("1"), report("2")]
    assert again.adopt() == []
    again.clear()
    assert (tmp_path / "heir.journal").read_bytes() == b""
    again.close(delivered=True)


async def test_a_living_client_adopts_the_journal_of_a_sibling_that_ended(site: Site) -> None:  # P11
    ending, living = rescind.Client(**site.options), rescind.AsyncClient(**site.options)
    living.core.reports.held.adopt_seconds = 0.02
    async with living:
        context = capture(ending, "1")
        (await asyncio.to_thread(context.__enter__)).result = {"id": "pi_1"}
        await asyncio.to_thread(ending.close)
        await asyncio.to_thread(context.__exit__, None, None, None)
        await until(lambda: statuses_are(site, ["succeeded"]))
        await until(lambda: living.status().held_outcome_count == 0)


async def test_large_results_held_while_the_server_was_down_are_all_delivered(fragile: Site) -> None:  # P11
    async with rescind.AsyncClient(**fragile.options) as client:
        contexts = [capture(client, str(number)) for number in range(160)]
        effects = await asyncio.gather(*(context.__aenter__() for context in contexts))
        fragile.server.kill()
        for number, effect in enumerate(effects):
            effect.result = {"id": f"pi_{number}", "text": "x" * 64_000}
        await asyncio.gather(*(context.__aexit__(None, None, None) for context in contexts))
        assert client.status().held_outcome_count == 160
        await asyncio.to_thread(fragile.server.start)
        await until(lambda: client.status().held_outcome_count == 0)
        assert client.status().refused_outcome_count == 0
    rows = await asyncio.to_thread(fragile.statuses)
    assert set(rows) == {"succeeded"}


async def test_an_outcome_that_the_ledger_refuses_is_named_in_the_status(site: Site) -> None:  # P11
    async with rescind.AsyncClient(**site.options) as client:
        async with capture(client, "1"):
            pass
        (row,) = await asyncio.to_thread(site.effects)
        stranger = EffectReport(effect_id=row["id"], token="0199a1b2-c3d4-7000-8000-000000000001", outcome="succeeded")
        await client.core.reports.deliver(client.core.reports.submit(stranger))
        status = client.status()
    assert status.refused_outcome_count == 1
    assert read_lines(Path(status.refused_outcome_place).read_bytes()) == [stranger]


async def test_an_effect_takes_its_lease_from_its_steps_definition(site: Site) -> None:  # P8
    order = rescind.Saga("order", version="1", flag=FLAG)
    order.declare("capture", kind="payment.capture", key="capture:{order_id}", lease_seconds=600)
    async with rescind.AsyncClient(**site.options, sagas=[order]) as client:
        saga = order.instance("1")
        for key, more in (("step", {}), ("own", {"lease_seconds": 90})):
            async with capture(client, key, saga=saga, step="capture", **more):
                rows = await asyncio.to_thread(site.effects)
                row = next(row for row in rows if row["key"] == key)
            assert round(lease_seconds(row) / 10) == (60 if key == "step" else 9)
        async with capture(client, "other", saga=order.instance("2"), step="ship"):
            rows = await asyncio.to_thread(site.effects)
        assert round(lease_seconds(next(row for row in rows if row["key"] == "other")) / 10) == 3


def lease_seconds(row: dict[str, str]) -> float:
    """From its admission to the end of its lease."""
    until_, since = (msgspec.convert(row[name], datetime) for name in ("lease_until", "admitted_at"))
    return (until_ - since).total_seconds()


async def statuses_are(site: Site, wanted: list[str]) -> bool:
    return bool(await asyncio.to_thread(site.statuses) == wanted)
