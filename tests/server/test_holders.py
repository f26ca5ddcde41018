"""A rollback waits for every instance that may hold records of what it began by itself, and names them (P10 to P12)."""

from __future__ import annotations

from typing import Any

from tests.server.serving import P, Served
from tests.server.test_cli import Line
from tests.waiting import until

FLAG = "checkout.new-flow"


async def proceeding(served: Served, **fields: Any) -> None:
    """A flag of the service `web` that lets effects go on."""
    await served.put_flag(FLAG, services=["web"], on_unreachable="proceed", **fields)


async def beat(served: Served, instance: str, n: int = 1, **fields: Any) -> None:
    """One beat of an instance that may proceed."""
    message = {"instance": instance, "service": "web", "revision": [1, n], "proceeds": True, **fields}
    await served.ok("POST", f"{P}/heartbeats", message)


async def holders(served: Served, killed: Any) -> list[str]:
    """Those for whom the rollback waits, once it has looked."""
    found = await served.ok("GET", f"/v1/rollbacks/{killed['rollback_id']}")
    return [one["instance"] for one in found["proceeding"]["holders"] if one["cleared_at"] is None]


async def waits_for(served: Served, killed: Any, *names: str) -> None:
    """Return once it waits, and for these."""

    async def does() -> bool:
        found = await served.ok("GET", f"/v1/rollbacks/{killed['rollback_id']}")
        return found["state"] == "waiting" and await holders(served, killed) == sorted(names)

    await until(does)


async def test_each_has_to_say_since_the_kill_that_it_holds_nothing(served: Served) -> None:
    await proceeding(served)
    for name in ("acknowledges", "signs off", "holds on"):
        await beat(served, name)
    await beat(served, "another service", service="mail")
    await beat(served, "an older SDK", proceeds=False)
    await beat(served, "gone before", signing_off=True)
    killed = await served.kill(FLAG)
    n = int(killed["revision"].partition(".")[2])
    await waits_for(served, killed, "acknowledges", "holds on", "signs off")
    await beat(served, "signs off", signing_off=True)
    await beat(served, "acknowledges", n)
    await beat(served, "holds on", n, journal_open=True)
    await beat(served, "came back with records", n, journal_open=True)
    await waits_for(served, killed, "came back with records", "holds on")
    await beat(served, "holds on", n)
    await waits_for(served, killed, "came back with records")
    await beat(served, "came back with records", n)
    settled = await served.settled(killed)
    assert settled["settled_sums"]["adds_up"]


async def test_a_sibling_that_has_delivered_for_the_dead_says_so_and_only_one_who_may(served: Served) -> None:
    await proceeding(served)
    await beat(served, "dead")
    killed = await served.kill(FLAG)
    await waits_for(served, killed, "dead")
    weak = {"authorization": f"Bearer {await served.token('evaluate')}"}
    message = {"instance": "stranger", "service": "mail", "revision": [1, 1], "adopted": ["dead"]}
    answer = await served.http.post(f"{P}/heartbeats", json=message, headers=weak)
    assert answer.status_code == 200, answer.text
    await beat(served, "heir", 9, adopted=["dead"], journal_open=True)
    await waits_for(served, killed, "dead", "heir")
    await beat(served, "heir", 9, adopted=["dead"])
    await served.settled(killed)


async def test_a_change_of_mind_before_the_kill_changes_nothing(served: Served) -> None:
    await proceeding(served)
    await beat(served, "cut off")
    await served.put_flag(FLAG, services=["web"])
    killed = await served.kill(FLAG)
    await waits_for(served, killed, "cut off")


async def test_a_wider_kill_asks_everyone_anew(served: Served) -> None:
    await proceeding(served, effect_attributes=["country"])
    await beat(served, "one", 1)
    first = await served.kill(FLAG, scope={"country": "DE"})
    n = int(first["revision"].partition(".")[2])
    await beat(served, "one", n)
    await served.settled(first)
    wider = await served.kill(FLAG)
    assert wider["rollback_id"] == first["rollback_id"]
    await beat(served, "two", n)
    await waits_for(served, wider, "one", "two")


async def test_who_cancels_has_answered_for_the_records_too(served: Served) -> None:
    await proceeding(served)
    await beat(served, "lost")
    killed = await served.kill(FLAG)
    await waits_for(served, killed, "lost")
    await served.ok("POST", f"/v1/rollbacks/{killed['rollback_id']}/cancel", {"reason": "by hand"})
    await served.settled(killed)


async def test_held_and_lifted_in_grace_are_as_ever(served: Served) -> None:
    await proceeding(served)
    await beat(served, "cut off")
    killed = await served.kill(FLAG, compensate="hold")
    found = await served.ok("GET", f"/v1/rollbacks/{killed['rollback_id']}", wait="drained", timeout_seconds=30)
    assert found["state"] in ("drained", "held")
    await served.ok("POST", f"{P}/flags/{FLAG}/lift", {"reason": "a mistake", "kill_count": 1})
    assert (await served.settled(killed))["outcome"] == "lifted_in_grace"


async def test_people_see_it_everywhere_and_write_off_by_name(served: Served) -> None:
    line = Line(served)
    await proceeding(served)
    await beat(served, "web@host-7", journal_open=True)
    assert "proceeds without the server" in (await line("get", FLAG)).stdout
    assert "on unreachable" in (await line("flags")).stdout
    preview = await line("preview", FLAG)
    assert "it proceeds without the server: 0 such effects" in preview.stdout
    assert "have not delivered" in preview.stdout.replace("\n", " ")
    assert "journal open" in (await line("instances")).stdout
    killed = await served.kill(FLAG)
    await waits_for(served, killed, "web@host-7")
    identity = killed["rollback_id"]
    for command in (("report", identity), ("status",), ("watch", identity, "--timeout", "1")):
        shown = (await line(*command)).stdout
        assert "web@host-7 holds records" in shown, (command, shown)
    refused = await line("skip", identity, "--reason", "which?")
    assert refused.returncode == 2
    done = await line("skip", identity, "--instance", "web@host-7", "--reason", "its disk is gone")
    assert "1 changed" in done.stdout, done
    await served.settled(killed)
    assert "was written off by" in (await line("report", identity)).stdout
