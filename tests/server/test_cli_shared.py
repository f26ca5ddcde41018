"""Segments, prerequisites, schedules and rollouts on the command line, against a real server that applies what is due."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rescind

from tests.server.serving import P, Served, definition
from tests.server.test_cli import FLAG, Line
from tests.waiting import until

WHEN = '{"when": [{"attribute": "country", "operator": "in", "value": ["DE", "AT"]}]}'


@pytest.fixture
def line(served: Served) -> Line:
    return Line(served)


async def test_a_segment_is_set_shown_and_kept_while_a_flag_refers_to_it(served: Served, line: Line) -> None:
    done = await line("segments", "set", "dach", WHEN, "--reason", "new")
    assert (done.returncode, "at 1.1" in done.stdout) == (0, True), done
    await served.put_flag(FLAG, definition=definition({"if": [{"$ref": "dach"}, "on", "off"]}))
    listed = (await line("segments")).stdout
    for words in ("dach", "country in DE, AT", FLAG):
        assert words in listed, listed
    assert f"referred to by {FLAG}" in (await line("segments", "get", "dach")).stdout
    assert "segment dach" in (await line("get", FLAG)).stdout
    refused = await line("segments", "delete", "dach", "--reason", "unused")
    assert refused.returncode == 1
    assert f"flag `{FLAG}` refers to segment `dach`" in refused.stderr
    assert "did you mean dach?" in (await line("segments", "get", "dahc")).stderr
    await served.put_flag(FLAG)
    assert (await line("segments", "delete", "dach", "--reason", "unused")).returncode == 0


async def test_rules_are_read_in_the_form_in_which_they_are_written(served: Served, line: Line, tmp_path: Path) -> None:
    rules = [{"name": "beta", "when": [{"attribute": "plan", "operator": "equals", "value": "beta"}], "serve": "on"}]
    await served.put_flag("base")
    needs = [{"flag": "base", "variant": "on"}]
    flag = {"key": FLAG, "definition": definition(), "rules": rules, "owner": "me", "prerequisites": needs}
    assert (await line("set", json.dumps(flag), "--reason", "new")).returncode == 0
    file = tmp_path / "flag.json"
    file.write_text((await line("get", FLAG, "--rules")).stdout)
    written = json.loads(file.read_text())
    assert (written["rules"], "targeting" in written["definition"], written["prerequisites"]) == (rules, False, needs)
    before = await served.ok("GET", f"{P}/flags/{FLAG}")
    assert (await line("set", str(file), "--reason", "the same")).returncode == 0
    after = await served.ok("GET", f"{P}/flags/{FLAG}")
    assert {**before, "revision": after["revision"]} == after
    assert "served only where base serves on" in (await line("get", FLAG)).stdout


async def test_a_kill_of_a_prerequisite_holds_for_its_dependents_in_every_client(served: Served) -> None:  # P4, P7, P21
    await served.put_flag("base")
    await served.put_flag(FLAG, prerequisites=[{"flag": "base", "variant": "on"}])
    assert (await served.evaluate(FLAG))["value"] is True
    token = await served.token("evaluate")
    async with rescind.AsyncClient(service="checkout", url=served.url, token=token) as client:
        await client.wait_ready()
        assert client.boolean(FLAG, False) is True
        killed = await served.kill("base")

        async def off() -> bool:
            return bool((await served.evaluate(FLAG))["value"] is False)

        await until(off)
        await until(lambda: client.boolean(FLAG, True) is False)
    shown = await served.ok("GET", f"{P}/flags/{FLAG}")
    assert (shown["killed"], shown["revision"]) == (False, "1.2"), "its own state is as it was"
    assert killed["revision"] == "1.3"


async def test_a_change_is_scheduled_shown_applied_and_cancelled(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    off = json.dumps({"key": FLAG, "definition": {**definition(), "defaultVariant": "off"}})
    later = await line("schedule", "add", off, "--in", "1h30m", "--reason", "at night", "--json")
    identity = json.loads(later.stdout)["id"]
    assert "to come: a change at" in (await line("get", FLAG)).stdout
    assert "a change at" in (await line("flags")).stdout
    assert identity in (await line("schedule")).stdout
    assert '"defaultVariant": "off"' in (await line("schedule", "show", identity)).stdout
    assert (await line("schedule", "cancel", identity, "--reason", "no")).returncode == 0
    soon = await line("schedule", "add", off, "--in", "0s", "--reason", "now")
    assert soon.returncode == 0, soon

    async def applied() -> bool:
        return bool((await served.evaluate(FLAG))["value"] is False)

    await until(applied)
    listed = (await line("schedule", "list", "--flag", FLAG)).stdout
    assert ("applied" in listed, "cancelled" in listed) == (True, True), listed
    assert "applied" in (await line("schedule")).stdout, "what became of the others is said without being asked for"
    operations = json.dumps([{"op": "archive", "key": "nowhere"}])
    await line("schedule", "add", operations, "--in", "0s", "--reason", "now")

    async def refused() -> bool:
        return "There is no flag 'nowhere'" in (await line("schedule", "list", "--status", "refused")).stdout

    await until(refused)
    kill = json.dumps([{"op": "kill", "key": FLAG, "compensate": "none"}])
    assert (await line("schedule", "add", kill, "--in", "0s", "--reason", "the trial ends")).returncode == 0

    async def killed() -> bool:
        return bool((await served.ok("GET", f"{P}/flags/{FLAG}"))["killed"])

    await until(killed)
    for wrong in (("--in", "soon"), (), ("--at", "2026-11-24T09:00:00Z", "--in", "1h")):
        assert (await line("schedule", "add", off, *wrong, "--reason", "x")).returncode == 2


async def test_a_rollout_is_begun_shown_and_stopped(served: Served, line: Line) -> None:
    await served.put_flag(FLAG, definition={**definition(), "defaultVariant": "off"})
    begun = await line("rollout", FLAG, "on", "--steps", "1,10,100", "--every", "1h", "--reason", "carefully")
    assert (begun.returncode, "on at 1 %, off for the rest; running" in begun.stdout) == (0, True), begun
    assert "on at 1 %, next step" in (await line("get", FLAG)).stdout
    await served.kill(FLAG)

    async def stopped() -> bool:
        return "stopped: killed" in (await line("rollout", FLAG)).stdout

    await until(stopped)
    refused = await line("rollout", FLAG, "--stop", "--reason", "x")
    assert (refused.returncode, "stopped already" in refused.stderr) == (1, True), refused
    assert (await line("rollout", FLAG, "on", "--steps", "1", "--reason", "x")).returncode == 2
