"""Runs of sagas at the command line: listed, shown, told and mended by people (P19, P20)."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import Any

import pytest

from tests.server.processes import rescind
from tests.server.serving import P, Served

FLAG = "checkout.new-flow"
ORDER: dict[str, Any] = {
    "saga": "order",
    "version": "1",
    "flag": FLAG,
    "steps": [
        {"name": "reserve", "kind": "stock.reserve", "key": "reserve:{order}", "compensation": {"executor": "worker"}},
        {"name": "capture", "kind": "payment.capture", "key": "capture:{order}", "compensation": {"executor": "worker"}},
    ],
    "waits": [
        {"name": "large", "before": "reserve", "approval": True},
        {"name": "paid", "before": "capture", "event": True},
    ],
}


class Line:
    """The command line, and the server that it is told of."""

    def __init__(self, served: Served) -> None:
        self.served = served

    async def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        variables = {"RESCIND_URL": self.served.url, "RESCIND_TOKEN": self.served.admin}
        done = await asyncio.to_thread(rescind, "sagas", *arguments, **variables)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    async def said(self, *arguments: str) -> str:
        """What it prints, where it succeeds."""
        done = await self(*arguments)
        assert done.returncode == 0, done
        return " ".join(done.stdout.split())


@pytest.fixture
async def line(served: Served) -> Line:
    await served.put_flag(FLAG)
    await served.ok("PUT", f"{P}/sagas/order/versions/1", ORDER)
    starts = [{"id": str(number), "version": "1", "variant": "on", "input": {"order": str(number)}} for number in range(2)]
    await served.ok("POST", f"{P}/sagas/order/instances:start", {"instances": starts})
    return Line(served)


async def test_runs_are_listed_and_one_is_shown_with_what_it_waits_for(line: Line) -> None:
    listed = await line.said("instances", "order", "--state", "running")
    assert "running" in listed
    shown = json.loads((await line("instances", "order", "--json", "--limit", "1")).stdout)
    assert (len(shown["instances"]), bool(shown["next"])) == (1, True)
    assert await line.said("instances", "order", "--state", "undone") == "no such instances"
    shown_one = await line.said("show", "order", "1")
    assert "order 1, version 1: running" in shown_one
    assert "large" in shown_one


async def test_people_answer_waits_and_services_tell_events(line: Line) -> None:
    assert "approve: done" in await line.said("approve", "order", "1", "large", "--reason", "known customer")
    assert "nothing to change" in await line.said("refuse", "order", "1", "large", "--reason", "too late")
    event = ("event", "order", "1", "paid", "--payload", '{"amount": 5}', "--event-id", "e1")
    assert "event paid: done" in await line.said(*event)
    assert "nothing to change" in await line.said(*event)
    assert "known customer" in await line.said("show", "order", "1")


async def test_a_run_is_paused_resumed_skipped_and_cancelled(line: Line) -> None:
    assert "paused" in await line.said("pause", "order", "1", "--reason", "looking")
    assert "paused" not in await line.said("resume", "order", "1", "--reason", "looked")
    assert "skip: done" in await line.said("skip", "order", "1", "--step", "large", "--reason", "not needed")
    assert "cancel: done" in await line.said("cancel", "order", "1", "--reason", "wrong")
    assert "nothing to change" in await line.said("cancel", "order", "1", "--reason", "wrong")


async def test_what_cannot_be_is_said_with_what_can(line: Line) -> None:
    for arguments in (
        ("show", "order", "no-such-run"),
        ("cancel", "ordr", "1", "--reason", "x"),
        ("retry", "order", "1", "--step", "captre", "--reason", "x"),
        ("approve", "order", "1", "paid", "--reason", "x"),
    ):
        done = await line(*arguments)
        assert done.returncode != 0, done
        assert done.stderr.strip(), done
    assert (await line("skip", "order", "1", "--reason", "which?")).returncode == 2


async def test_runs_of_all_sagas_are_found_by_what_they_are(line: Line) -> None:
    one = {"id": "x", "version": "1", "variant": "on", "input": {"order": "x"}, "attributes": {"plan": "gold", "n": 3}}
    await line.served.ok("POST", f"{P}/sagas/order/instances", {**one, "subject": "ann"})
    for options in (("--attribute", "plan=gold", "--attribute", "n=3"), ("--subject", "ann"), ("order", "--subject", "ann")):
        found = json.loads((await line("instances", "--json", "--younger-than", "1h", *options)).stdout)
        assert [(run["saga"], run["id"]) for run in found["instances"]] == [("order", "x")], options
    assert await line.said("instances", "--paused") == await line.said("instances", "--older-than", "1h") == "no such instances"
    paused = await line("pause", "order", "x", "--reason", "look")
    assert paused.returncode == 0
    assert "order" in await line.said("instances", "--paused", "--state", "running")


async def test_a_verb_for_many_is_previewed_carried_out_and_listed(line: Line) -> None:
    asked = ("bulk", "pause", "order", "--state", "running", "--reason", "the depot burnt down")
    assert "pause: 2 runs (" in await line.said(*asked, "--dry-run")
    assert await line.said("operations") == "no bulk operations"
    assert "pause done for 2" in await line.said(*asked, "--yes", "--per-second", "500")
    again = json.loads((await line(*asked, "--json")).stdout)
    assert (again["state"], again["done"], again["refused"]) == ("done", 0, {"paused": 2})
    assert "the depot burnt down" in await line.said("operations")
    assert "2 paused" in await line.said("operations", again["id"], "--cancel", "--reason", "late")
    assert (await line("bulk", "skip", "order", "--reason", "which?")).returncode != 0
