"""What becomes of one task in a worker: begun, given back, in doubt, proven (P8, P10), on the core of a real client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import rescind
from rescind.attempts import Attempts
from rescind.handlers import handlers_of
from rescind.wire import Task, TaskReport

from tests.sdk.conftest import FLAG, Site
from tests.waiting import until


class Declined(Exception):  # noqa: N818 - a provider's own word
    """What the provider raises where it did nothing."""


saga = rescind.Saga("order", version="1", flag=FLAG)
begun: list[str] = []


@saga.step(kind="capture", key="capture:{say}", proof_of_failure=[Declined])
async def capture(say: str) -> str:
    begun.append(say)
    errors: dict[str, Callable[[], BaseException]] = {
        "declined": lambda: Declined("no money"),
        "final": lambda: rescind.NotDone("no such card", final=True),
        "lost": lambda: ConnectionError("no answer"),
    }
    if say in errors:
        raise errors[say]()
    await (asyncio.Event().wait() if say == "forever" else asyncio.sleep(0))
    return f"said {say}"


@saga.step(kind="mail", key="mail:{say}")
def mail(say: str) -> str:
    begun.append(say)
    return rescind.current_effect().provider_key


TASK = Task(
    id="01a21011-196c-765e-865f-f1b93fa1b748", token="t", saga="order", version="1", step="capture", attempt=1, action_key="a",
    effects=[], lease_seconds=30.0, verb="act", start_within_ms=2000,
)  # fmt: skip

Carry = Callable[..., Any]


@pytest.fixture
async def client(site: Site) -> AsyncIterator[rescind.AsyncClient]:
    begun.clear()
    async with rescind.AsyncClient(**site.options) as one:
        yield one


async def carried_out(client: rescind.AsyncClient, say: str, *, late_seconds: float = 0.0, **fields: Any) -> TaskReport:
    core = client.core
    effect = {
        "id": TASK.id, "kind": "capture", "key": "k", "flag": FLAG, "variant": "on", "payload": {"say": say},
        "epoch": 1, "attributes": {},
    }  # fmt: skip
    task = msgspec.structs.replace(TASK, effects=[effect], **fields)
    (handlers,) = handlers_of([saga])
    attempts = Attempts(core, handlers, 1)
    try:
        work = asyncio.ensure_future(attempts.carry_out(task, core.clock.monotonic() - late_seconds))
        if say == "cancelled":
            await asyncio.sleep(0)
            work.cancel()
        report = await work
        assert (core.bodies.begun() == [TASK.id]) is (report.outcome != "not_started")
        attempts.ended(task)
        assert core.bodies.begun() == []
        return report
    finally:
        attempts.close()


async def test_what_a_function_returns_is_its_result_and_a_synchronous_one_knows_its_effect(
    client: rescind.AsyncClient,
) -> None:
    assert (await carried_out(client, "yes")).proof == "said yes"
    assert (await carried_out(client, "yes", step="mail")).proof == TASK.id


async def test_a_permission_that_is_stale_is_given_back_and_nothing_begins(client: rescind.AsyncClient) -> None:
    # P8
    for step in ("capture", "mail"):
        report = await carried_out(client, "late", late_seconds=2.5, step=step)
        assert (report.outcome, report.verb) == ("not_started", "act")
    assert (await carried_out(client, "held", late_seconds=2.5, held_ms=1000)).outcome == "succeeded"
    assert begun == ["held"]


async def test_after_a_known_kill_no_step_begins(site: Site, client: rescind.AsyncClient) -> None:
    # P8
    await asyncio.to_thread(site.kill)
    await until(lambda: not client.boolean(FLAG, True))
    assert (await carried_out(client, "killed")).outcome == "not_started"
    assert begun == []


async def test_a_step_that_the_kill_lets_go_on_by_name_begins(site: Site, client: rescind.AsyncClient) -> None:
    # P8
    await asyncio.to_thread(site.kill)
    await until(lambda: not client.boolean(FLAG, True))
    assert (await carried_out(client, "late", late_seconds=2.5, continued=True)).outcome == "not_started"
    assert (await carried_out(client, "goes on", continued=True)).outcome == "succeeded"
    assert begun == ["goes on"]


@pytest.mark.parametrize(
    ("say", "outcome", "final"),
    [("declined", "failed", False), ("final", "failed", True), ("lost", "unknown", False), ("forever", "unknown", False)],
)
async def test_only_proof_makes_a_failure_and_all_else_is_in_doubt(
    client: rescind.AsyncClient, say: str, outcome: str, final: bool
) -> None:
    # P10
    report = await carried_out(client, say, timeout_seconds=0.05)
    assert (report.outcome, report.final) == (outcome, final)
    assert report.error is not None


async def test_a_step_that_nobody_here_has_is_told(client: rescind.AsyncClient) -> None:
    (handlers,) = handlers_of([saga])
    attempts = Attempts(client.core, handlers, 1)
    report = await attempts.carry_out(msgspec.structs.replace(TASK, step="other"), 0.0)
    attempts.close()
    assert (report.outcome, (report.error or {})["type"]) == ("failed", "UnknownStep")
