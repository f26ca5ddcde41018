"""Effects through the whole server: fenced by a kill, undone or reported, and the report adds up (P8, P11, P12, P19)."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from rescind.sse import EventParser

from server.rollbacks.record import STATES
from tests.server.serving import P, Served
from tests.waiting import until

FLAG = "checkout.new-flow"
MAIL = {
    "kind": "confirmation.mail",
    "version": "1",
    "class": "compensatable",
    "compensation": {
        "executor": "email",
        "connection": "mail",
        "to": "{{ effect.payload.to }}",
        "subject": "A correction",
        "body": "Please ignore our last mail.",
        "dedupe_by": "subject",
    },
}
PARCEL = {"kind": "parcel.sent", "version": "1", "class": "irreversible"}


@pytest.fixture
async def mailbox() -> AsyncIterator[tuple[list[bytes], int]]:
    """What was mailed, and the port to mail to."""
    received: list[bytes] = []

    class Handler:
        async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
            assert isinstance(envelope.content, bytes)
            received.append(envelope.content)
            return "250 kept"

    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Handler(), loop=loop), "127.0.0.1", 0)
    yield received, server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


def effect(key: str, kind: str = "confirmation.mail", *, flag: str = FLAG, **fields: Any) -> dict[str, Any]:
    return {
        "key": key, "kind": kind, "kind_version": "1", "flag": flag, "payload": {"to": f"{key}@example.com"}, "variant": "on",
        "subject": key, **fields,
    }  # fmt: skip


async def admit(served: Served, *effects: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await served.ok("POST", f"{P}/effects:admit", {"effects": list(effects)})
    results: list[dict[str, Any]] = answer["results"]
    return results


async def succeed(served: Served, *admitted: dict[str, Any]) -> None:
    reports = [{"effect_id": one["effect_id"], "token": one["token"], "outcome": "succeeded", "result": {}} for one in admitted]
    await served.ok("POST", f"{P}/effects:report", {"reports": reports})


async def state(served: Served, identity: str, *states: str) -> Any:
    async def reached() -> Any:
        record = await served.ok("GET", f"/v1/rollbacks/{identity}")
        return record if record["state"] in states else None

    return await until(reached)


async def prepare(served: Served, port: int) -> None:
    await served.put_flag(FLAG)
    connection = {"type": "smtp", "host": "127.0.0.1", "port": port, "sender": "shop@example.com"}
    await served.ok("PUT", f"{P}/connections/mail", {"connection": connection, "reason": "test"})
    for document in (MAIL, PARCEL):
        await served.ok("PUT", f"{P}/kinds/{document['kind']}/versions/1", document)


async def test_after_a_kill_none_of_the_old_epoch_is_admitted_and_the_old_path_goes_on(served: Served) -> None:  # P8
    await served.put_flag(FLAG)
    (before,) = await admit(served, effect("a"))
    assert before["outcome"] == "admitted"
    killed = await served.kill(FLAG)
    late, off, again = await admit(served, effect("b"), effect("c", variant="off"), effect("a"))
    assert (late["outcome"], late["rollback_id"], late["off_variant"]) == ("killed", killed["rollback_id"], "off")
    assert off["outcome"] == "admitted"
    assert again["outcome"] != "admitted"


async def test_a_scoped_kill_fences_its_scope_alone(served: Served) -> None:  # P8, hazard 9
    await served.put_flag(FLAG, effect_attributes=["country"])
    await served.kill(FLAG, scope={"country": "DE"})
    german, french, unknown = await admit(
        served, effect("a", attributes={"country": "DE"}), effect("b", attributes={"country": "FR"}), effect("c")
    )
    assert [one["outcome"] for one in (german, french, unknown)] == ["killed", "admitted", "killed"]


async def test_what_was_done_is_undone_and_the_report_adds_up(served: Served, mailbox: tuple[list[bytes], int]) -> None:  # P12
    received, port = mailbox
    await prepare(served, port)
    mails = [effect(f"m{number}", subject="ann" if number < 2 else "bob") for number in range(3)]
    done = await admit(served, *mails, effect("p", "parcel.sent"))
    (failed,) = await admit(served, effect("f"))
    await admit(served, effect("kept", variant="off"))
    await succeed(served, *done)
    report = {"effect_id": failed["effect_id"], "token": failed["token"], "outcome": "failed", "error": {"type": "NotDone"}}
    await served.ok("POST", f"{P}/effects:report", {"reports": [report]})
    killed = await served.kill(FLAG, fault_at="2026-01-01T00:00:00Z", detected_at="2026-01-01T00:01:00Z")
    record = await state(served, killed["rollback_id"], "settled")
    assert len(received) == 2  # one correction per subject
    mails_undone = record["counts"]["confirmation.mail"]
    assert {name: mails_undone[name] for name in ("admitted", *STATES)} == {
        "admitted": 4, "compensated": 3, "never_happened": 1, "irreversible": 0, "skipped": 0, "waiting": 0, "pending": 0,
    }  # fmt: skip
    assert record["counts"]["parcel.sent"]["irreversible"] == 1
    found = await served.ok("GET", f"/v1/rollbacks/{killed['rollback_id']}/report")
    assert (found["sum"]["set"], found["sum"]["adds_up"], found["sum"]["missing"], found["sum"]["extra"]) == (5, True, 0, 0)
    assert found["sum"]["line"] == "5 effects = 3 compensated + 1 never happened + 1 irreversible"
    times = {moment["name"]: moment["at"] for moment in found["timeline"]}
    order = ["fault", "detected", "decided", "fenced", "drained", "whole"]
    assert [times[name] for name in order] == sorted(times[name] for name in order)
    assert times["verified"] is None
    assert next(moment for moment in found["timeline"] if moment["name"] == "verified")["reason"]
    assert {line["key"] for line in found["effects"]} == {"m0", "m1", "m2", "p", "f"}
    assert all(line["proof"] for line in found["effects"] if line["disposition"] == "compensated")


async def test_the_report_is_csv_for_whoever_asks(served: Served) -> None:
    await served.put_flag(FLAG)
    done = await admit(served, *(effect(f"=key{number}") for number in range(5)))
    await succeed(served, *done)
    killed = await served.kill(FLAG)
    await state(served, killed["rollback_id"], "waiting", "settled")
    answer = await served.http.get(f"/v1/rollbacks/{killed['rollback_id']}/report", params={"format": "csv"})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["content-type"].startswith("text/csv")
    assert {row["key"] for row in rows} == {f"'=key{number}" for number in range(5)}
    assert {row["disposition"] for row in rows} == {"waiting"}


async def test_an_effect_without_a_definition_waits_for_a_person_who_may_skip_it(served: Served) -> None:  # P12, P15, P20
    await served.put_flag(FLAG)
    done = await admit(served, effect("a"), effect("b"))
    await succeed(served, *done)
    identity = (await served.kill(FLAG))["rollback_id"]
    await state(served, identity, "waiting")
    async with served.client(await served.token("read")) as reader:
        body = {"reason": "known", "effects": [one["effect_id"] for one in done]}
        assert (await reader.post(f"/v1/rollbacks/{identity}/skip", json=body)).status_code == 403
    assert (await served.http.post(f"/v1/rollbacks/{identity}/skip", json={"reason": "all"})).status_code == 422
    skipped = await served.ok("POST", f"/v1/rollbacks/{identity}/skip", body)
    assert skipped["changed"] == 2
    record = await state(served, identity, "settled")
    found = await served.ok("GET", f"/v1/rollbacks/{identity}/report")
    assert {line["by_whom"] for line in found["effects"]} == {"admin"}
    assert (record["counts"]["confirmation.mail"]["skipped"], found["sum"]["adds_up"]) == (2, True)


async def test_a_retry_says_how_many_effects_it_did_not_reach(served: Served) -> None:  # P16, P20
    await served.put_flag(FLAG)
    done = await admit(served, effect("a"), effect("b"), effect("c"))
    await succeed(served, *done)
    identity = (await served.kill(FLAG))["rollback_id"]
    await state(served, identity, "waiting")
    body = {"reason": "there is a definition now", "effects": [done[0]["effect_id"]]}
    retried = await served.ok("POST", f"/v1/rollbacks/{identity}/retry", body)
    assert (retried["changed"], retried["remaining"]) == (1, 2)
    assert (await served.ok("POST", f"/v1/rollbacks/{identity}/pause", {"reason": "lunch"}))["remaining"] is None


async def test_a_kill_that_asks_for_no_compensation_leaves_its_effects_open(served: Served) -> None:  # P17, P19
    await served.put_flag(FLAG)
    await succeed(served, *await admit(served, effect("a")))
    identity = (await served.kill(FLAG, compensate="none"))["rollback_id"]
    record = await state(served, identity, "settled")
    found = await served.ok("GET", f"/v1/rollbacks/{identity}/report")
    assert (record["outcome"], found["sum"]["open"], found["sum"]["adds_up"]) == ("not_compensated", 1, True)
    raised = await served.kill(FLAG, compensate="auto")
    assert (raised["rollback_id"], raised["compensate"]) == (identity, "auto")
    record = await state(served, identity, "waiting")
    assert (record["outcome"], record["counts"]["confirmation.mail"]["waiting"], record["reopened_count"]) == (None, 1, 1)


async def test_a_held_rollback_undoes_nothing_until_a_person_resumes_it(served: Served) -> None:  # P17
    await served.put_flag(FLAG)
    await succeed(served, *await admit(served, effect("a")))
    identity = (await served.kill(FLAG, compensate="hold"))["rollback_id"]
    await state(served, identity, "held")
    await served.ok("POST", f"/v1/rollbacks/{identity}/resume", {"reason": "go"})
    await state(served, identity, "waiting")


async def test_lifting_is_refused_while_compensations_run_unless_forced(served: Served) -> None:
    await served.put_flag(FLAG)
    await succeed(served, *await admit(served, effect("a")))
    identity = (await served.kill(FLAG))["rollback_id"]
    await state(served, identity, "waiting")
    await served.ok("POST", f"/v1/rollbacks/{identity}/pause", {"reason": "look"})
    await state(served, identity, "paused")
    lift = {"reason": "works again"}
    refused = await served.http.post(f"{P}/flags/{FLAG}/lift", json=lift)
    assert (refused.status_code, refused.json()["code"]) == (409, "compensations_running")
    assert refused.json()["next_step"]
    lifted = await served.ok("POST", f"{P}/flags/{FLAG}/lift", {**lift, "force": True})
    assert lifted["settled"] == []
    (again,) = await admit(served, effect("b", revision=lifted["revision"]))
    assert again["outcome"] == "admitted"


async def test_a_widened_kill_takes_the_effects_of_the_wider_scope_too(served: Served) -> None:  # P12, P19, hazard 9
    await served.put_flag(FLAG, effect_attributes=["country"])
    german, french = effect("de", attributes={"country": "DE"}), effect("fr", attributes={"country": "FR"})
    await succeed(served, *await admit(served, german, french))
    identity = (await served.kill(FLAG, scope={"country": "DE"}))["rollback_id"]
    record = await state(served, identity, "waiting")
    assert record["counts"]["confirmation.mail"]["waiting"] == 1
    await succeed(served, *await admit(served, effect("fr2", attributes={"country": "FR"})))
    assert (await served.kill(FLAG))["rollback_id"] == identity

    async def both() -> bool:
        counts = (await served.ok("GET", f"/v1/rollbacks/{identity}"))["counts"]
        return bool(counts["confirmation.mail"]["waiting"] == 3)

    await until(both)
    found = await served.ok("GET", f"/v1/rollbacks/{identity}/report")
    assert (found["sum"]["set"], found["sum"]["adds_up"]) == (3, True)


async def test_lifting_one_of_several_flags_in_grace_leaves_the_others_to_be_undone(served: Served) -> None:  # P17
    for key in ("a", "b"):
        await served.put_flag(key)
        await succeed(served, *await admit(served, effect(key, flag=key)))
    operations = [{"op": "kill", "key": key, "compensate": "hold"} for key in ("a", "b")]
    (kill,) = (await served.ok("POST", f"{P}/changes", {"operations": operations, "reason": "release 12"}))["kills"]
    identity = kill["rollback_id"]
    await state(served, identity, "held")
    lifted = await served.ok("POST", f"{P}/flags/a/lift", {"reason": "not that one"})
    assert lifted["settled"] == []
    await served.ok("POST", f"/v1/rollbacks/{identity}/resume", {"reason": "undo the rest"})
    await state(served, identity, "waiting")
    found = await served.ok("GET", f"/v1/rollbacks/{identity}/report")
    assert ([line["flag"] for line in found["effects"]], found["sum"]["adds_up"]) == (["b"], True)


async def test_effects_of_a_lifted_kill_stay_open_for_the_next_one(served: Served) -> None:  # P12, P17
    await served.put_flag(FLAG)
    await succeed(served, *await admit(served, effect("a")))
    first = await served.kill(FLAG, grace_seconds=3600)
    await served.ok("POST", f"{P}/flags/{FLAG}/lift", {"reason": "mistake"})
    second = await served.kill(FLAG)
    assert second["rollback_id"] != first["rollback_id"]
    record = await state(served, second["rollback_id"], "waiting")
    assert record["counts"]["confirmation.mail"]["admitted"] == 1
    found = await served.ok("GET", f"/v1/rollbacks/{first['rollback_id']}/report")
    assert (found["rollback"]["outcome"], found["sum"]["adds_up"]) == ("lifted_in_grace", True)


async def test_waiting_for_a_goal_answers_when_it_is_reached_or_the_time_is_up(served: Served) -> None:
    await served.put_flag(FLAG)
    await succeed(served, *await admit(served, effect("a")))
    identity = (await served.kill(FLAG))["rollback_id"]
    path = f"/v1/rollbacks/{identity}"
    assert (await served.ok("GET", path, wait="contained", timeout_seconds=60))["contained_at"]
    assert (await served.ok("GET", path, wait="drained", timeout_seconds=60))["drained_at"]
    assert (await served.ok("GET", path, wait="settled", timeout_seconds=0.1))["state"] != "settled"


async def test_events_tell_of_a_rollback_until_it_has_settled(served: Served) -> None:
    await served.put_flag(FLAG)
    await served.kill(FLAG)
    identity = (await served.kill(FLAG))["rollback_id"]
    parser = EventParser()
    states = []
    async with served.http.stream("GET", f"/v1/rollbacks/{identity}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for chunk in answer.aiter_raw():
            states += [json.loads(event.data)["state"] for event in parser.feed(chunk) if event.event == "rollback"]
    assert states[-1] == "settled"


async def test_a_preview_says_what_a_kill_would_undo_and_what_not(
    served: Served, mailbox: tuple[list[bytes], int]
) -> None:  # P15, P19
    await prepare(served, mailbox[1])
    await succeed(served, *await admit(served, effect("a"), effect("p", "parcel.sent"), effect("x", "unheard.of")))
    await admit(served, effect("o", variant="off"))
    await served.ok("POST", f"{P}/heartbeats", {"instance": "one", "service": "shop", "revision": [1, 1]})
    found = await served.ok("GET", f"{P}/flags/{FLAG}/kill-preview")
    assert {kind: numbers["effects"] for kind, numbers in found["effects"].items()} == {
        "confirmation.mail": 1, "parcel.sent": 1, "unheard.of": 1,
    }  # fmt: skip
    assert found["effects"]["confirmation.mail"]["undone_by"] == ["email"]
    assert found["services"]["shop"]["instances"] == 1
    assert any("unheard.of" in sentence for sentence in found["unknown"])
    assert (await served.ok("GET", f"{P}/flags/{FLAG}"))["killed"] is False


async def test_a_preview_says_what_no_live_worker_serves_until_one_runs(served: Served) -> None:  # P15
    await served.put_flag(FLAG)
    step = {"name": "reserve", "kind": "stock.reserve", "key": "reserve:{id}", "compensation": {"executor": "worker"}}
    for version in ("1", "2"):
        await served.ok("PUT", f"{P}/sagas/order/versions/{version}", {"saga": "order", "version": version, "flag": FLAG,
            "steps": [step]})  # fmt: skip
    saga = {"name": "order", "version": "2", "id": "1"}
    await admit(served, effect("r", "stock.reserve", saga=saga, step="reserve", kind_version=None))

    async def missing() -> bool:
        found = await served.ok("GET", f"{P}/flags/{FLAG}/kill-preview")
        return any("no live worker serves order 2" in sentence for sentence in found["unknown"])

    work = {"worker": "w", "saga": "order", "steps": ["reserve"], "wait_seconds": 0}
    assert await missing()
    await served.ok("POST", f"{P}/tasks:claim", {**work, "versions": ["1"]})
    assert await missing(), "a worker of another version"
    await served.ok("POST", f"{P}/tasks:claim", {**work, "versions": ["1", "2"]})
    assert not await missing()


async def previewed(served: Served) -> tuple[dict[str, list[str]], list[str]]:
    """How each kind would be undone, and what stands in the way."""
    found = await served.ok("GET", f"{P}/flags/{FLAG}/kill-preview")
    return {kind: numbers["undone_by"] for kind, numbers in found["effects"].items()}, found["unknown"]


async def test_a_preview_follows_the_version_of_a_loose_kind_that_was_in_force(
    served: Served, mailbox: tuple[list[bytes], int]
) -> None:  # P15
    await prepare(served, mailbox[1])
    saga = {"name": "order", "version": "9", "id": "4711"}
    await admit(served, effect("a", kind_version=None), effect("b", kind_version=None, saga=saga, step="unheard-of"))
    later = {**MAIL, "version": "2", "class": "irreversible", "compensation": None}
    await served.ok("PUT", f"{P}/kinds/{MAIL['kind']}/versions/2", later)
    assert await previewed(served) == ({"confirmation.mail": ["email"]}, [])
    await admit(served, effect("c", kind_version=None))
    undone_by, unknown = await previewed(served)
    assert set(undone_by["confirmation.mail"]) == {"email", "nothing"}
    assert unknown == ["1 confirmation.mail: irreversible, they would be reported"]


async def test_a_preview_says_which_step_no_live_worker_serves(served: Served) -> None:  # P15
    await served.put_flag(FLAG)
    steps = [
        {"name": name, "kind": f"{name}.done", "key": f"{name}:{{order}}", "compensation": {"executor": "worker"}}
        for name in ("pack", "ship")
    ]
    document = {"saga": "order", "version": "1", "flag": FLAG, "steps": steps}
    await served.ok("PUT", f"{P}/sagas/order/versions/1", {"definition": document, "reason": "test"})
    saga = {"name": "order", "version": "1", "id": "4711"}
    await admit(served, *[effect(name, f"{name}.done", saga=saga, step=name) for name in ("pack", "ship")])
    wait = "they wait until one runs (`rescind work`)"
    none = [f"1 {name}.done: no live worker serves order 1, step {name}; {wait}" for name in ("pack", "ship")]
    assert (await previewed(served))[1] == none
    claim = {"worker": "w", "saga": "order", "versions": ["1"], "steps": ["pack"], "limit": 1, "wait_seconds": 0}
    await served.ok("POST", f"{P}/tasks:claim", claim)
    assert (await previewed(served))[1] == none[1:]


async def test_who_retries_is_shown_when_the_old_attempt_can_no_longer_act(served: Served) -> None:  # P13, hazard 17
    await served.put_flag(FLAG)
    step = {"name": "pack", "kind": "pack.done", "key": "pack:{order}", "guarantee": "at_most_once"}
    document = {"saga": "order", "version": "1", "flag": FLAG, "steps": [{**step, "compensation": {"executor": "worker"}}]}
    await served.ok("PUT", f"{P}/sagas/order/versions/1", {"definition": document, "reason": "test"})
    saga = {"name": "order", "version": "1", "id": "4711"}
    await succeed(served, *await admit(served, effect("a", "pack.done", saga=saga, step="pack")))
    identity = (await served.kill(FLAG))["rollback_id"]
    claim = {"worker": "w", "saga": "order", "versions": ["1"], "steps": ["pack"], "wait_seconds": 30, "lease_seconds": 0.2}
    (task,) = (await served.ok("POST", f"{P}/tasks:claim", claim))["tasks"]
    await state(served, identity, "waiting")
    (row,) = (await served.ok("GET", f"/v1/rollbacks/{identity}/report"))["effects"]
    async with served.parts.pg.connection() as connection:
        ends_at = await connection.fetchval("SELECT lease_until FROM sagas.compensations WHERE attempt = 1")
    assert (row["reason"], datetime.fromisoformat(row["can_no_longer_act_at"])) == ("interrupted", ends_at)
    (effect_id,) = [one["id"] for one in task["effects"]]
    retried = await served.ok("POST", f"/v1/rollbacks/{identity}/retry", {"reason": "looked", "effects": [effect_id]})
    assert (retried["changed"], datetime.fromisoformat(retried["can_no_longer_act_at"])) == (1, ends_at)
    again = await served.ok("POST", f"/v1/rollbacks/{identity}/pause", {"reason": "x"})
    assert again["can_no_longer_act_at"] is None


async def beat(served: Served, instance: str, revision: str, **fields: Any) -> None:
    pair = [int(part) for part in revision.split(".")]
    await served.ok("POST", f"{P}/heartbeats", {"instance": instance, "service": "shop", "revision": pair, **fields})


async def test_contained_is_when_every_instance_has_acknowledged_and_the_silent_are_named(served: Served) -> None:
    await served.put_flag(FLAG)
    for name in ("one", "two", "three"):
        await beat(served, name, "1.1")
    killed = await served.kill(FLAG)
    await beat(served, "one", killed["revision"], begun=[])
    record = await served.ok("GET", f"/v1/rollbacks/{killed['rollback_id']}")
    assert [one["instance"] for one in record["containment"]["unconfirmed"]] == ["three", "two"]
    assert record["contained_at"] is None
    await beat(served, "two", "1.1", signing_off=True)
    await beat(served, "three", killed["revision"], begun=[])
    record = await served.ok("GET", f"/v1/rollbacks/{killed['rollback_id']}", wait="contained", timeout_seconds=60)
    assert record["contained_at"] is not None
    known = record["containment"]
    assert (known["instances"], known["acknowledged"], known["signed_off"]) == (3, 2, 1)
    learned = known["learned"]
    assert [one["instance"] for one in learned] == ["one", "two", "three"]
    assert [one["how"] for one in learned] == ["push", "", "push"]
    assert 0 < learned[0]["ms"] <= learned[1]["ms"] <= learned[2]["ms"]
    assert record["durations"]["act_seconds"] > 0


async def test_an_instance_whose_staleness_limit_ran_out_is_contained(served: Served) -> None:
    await served.put_flag(FLAG, max_staleness_seconds=0.2)
    await beat(served, "cut-off", "1.1", obeys_staleness=True)
    killed = await served.kill(FLAG)
    record = await served.ok("GET", f"/v1/rollbacks/{killed['rollback_id']}", wait="contained", timeout_seconds=60)
    assert record["containment"]["stale"] == 1
    assert record["contained_at"] > record["fenced_at"]
