"""The parts of the SDK that need no server: events, headers, files on disk, definitions."""

from __future__ import annotations

import ast
import asyncio
import importlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import rescind
from hypothesis import given
from hypothesis import strategies as st
from rescind import executors
from rescind.answers import problem_of, seconds_of
from rescind.batcher import Batcher
from rescind.context import REMEMBERED_MAX, RequestContext
from rescind.current import Current, DoesNotFollow
from rescind.header import header_value, read_header
from rescind.journal import Journal, line_of, read_lines
from rescind.lastknown import LastKnown
from rescind.saga import Saga
from rescind.settings import settings_from
from rescind.sse import Event, EventParser
from rescind.wire import Change, EffectReport, Kill, Revision, Snapshot, SnapshotFlag

from sagas.definitions import check

ON = SnapshotFlag(definition={"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"})
OFF = SnapshotFlag(
    definition={"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"},
    epoch=2,
    kills=[Kill(rollback_id="r", off_variant="off", closes_epoch=1, revision=Revision(1, 3))],
)


def snapshot(n: int, **flags: SnapshotFlag) -> Snapshot:
    return Snapshot(environment="production", revision=Revision(1, n), flags=flags)


def report(number: int, **more: object) -> EffectReport:
    return EffectReport(effect_id=f"e{number}", token=f"t{number}", outcome="succeeded", **more)  # type: ignore[arg-type]


# --- events -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 7), min_size=1), st.sampled_from(["\n", "\r\n", "\r"]))
def test_events_are_the_same_however_the_bytes_are_cut(cuts: list[int], end: str) -> None:
    text = "event: change\nid: 1.2\ndata: {\ndata: }\n\n:comment\n\nevent: heartbeat\ndata:x\n\ndata: cut off"
    content, parser, found = text.replace("\n", end).encode(), EventParser(), []
    while content:
        for size in cuts:
            found += list(parser.feed(content[:size]))
            content = content[size:]
    assert found == [Event(event="change", id="1.2", data="{\n}"), Event(event="heartbeat", id="1.2", data="x")]


def test_an_endless_event_is_refused_rather_than_kept() -> None:
    parser = EventParser()
    for _ in range(64):
        assert list(parser.feed(b"x" * 1024 * 1024)) == []
    with pytest.raises(ValueError, match="64 MiB"):
        list(parser.feed(b"x"))


# --- headers ----------------------------------------------------------------------------------------------------------


def test_a_header_that_was_written_is_read_back() -> None:
    # P3
    assert read_header([header_value("production", Revision(2, 7))], "production", Revision(2, 1)) == Revision(2, 7)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "production",
        "production.1",
        "production.1.-2",
        "production.1.2.3",
        "production.1.٣",
        "staging.1.9",
        "production.1.99999999999999999999999999",
        "production.1.2000000000",
        "production.5000.1",
        "x" * 10_000,
        "production.1.9\r\nx: y",
    ],
)
def test_forged_absurd_and_foreign_headers_are_ignored(value: str) -> None:
    # P3
    assert read_header([value], "production", Revision(1, 5)) is None


def test_repeated_headers_cost_a_bounded_look() -> None:
    # P3
    values = ["production.1.6"] * 4 + ["production.1.9"] * 10_000
    assert read_header(values, "production", Revision(1, 5)) == Revision(1, 6)
    assert read_header([",".join(values)], "production", Revision(1, 5)) == Revision(1, 6)


@given(st.binary(max_size=300))
def test_no_header_raises(value: bytes) -> None:
    # P3
    read_header([value], "production", Revision(1, 5))


# --- the snapshot in use ----------------------------------------------------------------------------------------------


def test_an_older_snapshot_never_replaces_a_later_one() -> None:
    # P2
    current = Current()
    assert current.take_snapshot(snapshot(3, f=OFF)) is not None
    assert current.take_snapshot(snapshot(2, f=ON)) is None
    assert current.take_snapshot(snapshot(3, f=ON)) is None
    assert current.revision == Revision(1, 3)
    assert current.killed == {"f"}


def test_a_snapshot_of_a_restored_database_replaces_the_old_generation() -> None:
    # P2
    current = Current()
    current.take_snapshot(snapshot(30, f=ON))
    restored = Snapshot(environment="production", revision=Revision(2, 1), flags={"f": ON})
    assert current.take_snapshot(restored) is not None
    assert current.revision == Revision(2, 1)


def test_a_change_is_applied_only_to_the_revision_that_it_follows() -> None:
    # P1, P2
    current = Current()
    current.take_snapshot(snapshot(2, f=ON, g=ON))
    kill = Change(
        environment="production",
        previous=Revision(1, 2),
        revision=Revision(1, 3),
        flags={"f": OFF},
        removed=["g"],
        kill=True,
    )
    late = msgspec.structs.replace(kill, previous=Revision(1, 3), revision=Revision(1, 4))
    applied = current.take_change(kill)
    assert applied is not None
    assert (applied.changed, applied.kill) == (["f", "g"], True)
    assert current.take_change(kill) is None
    assert current.take_change(late) is not None
    with pytest.raises(DoesNotFollow):
        current.take_change(msgspec.structs.replace(kill, previous=Revision(1, 8), revision=Revision(1, 9)))


def test_a_kill_that_the_fence_told_of_holds_until_a_later_epoch_is_known() -> None:
    # P4
    current = Current()
    current.take_snapshot(snapshot(2, f=ON))
    assert current.contain("f", "off", "r")
    assert current.evaluator is not None
    assert current.evaluator.boolean("f", True, {}) is False
    current.take_snapshot(snapshot(3, f=ON, g=ON))
    assert current.evaluator.boolean("f", True, {}) is False
    with current.lock:
        assert current.dead("f", 1, {}) is not None
    lifted = msgspec.structs.replace(ON, epoch=3)
    current.take_snapshot(snapshot(4, f=lifted))
    assert current.evaluator.boolean("f", False, {}) is True


def test_a_narrowed_kill_takes_effects_that_do_not_record_its_attribute() -> None:
    # P4, P8
    kill = msgspec.structs.replace(OFF.kills[0], scope={"region": "eu"})
    current = Current()
    current.take_snapshot(snapshot(2, f=msgspec.structs.replace(ON, epoch=2, kills=[kill])))
    with current.lock:
        assert current.dead("f", 1, {"region": "eu"})
        assert current.dead("f", 1, {})
        assert current.dead("f", 1, {"region": "us"}) is None
        assert current.dead("f", 2, {"region": "eu"}) is None


# --- what a request remembers -----------------------------------------------------------------------------------------


async def test_a_task_remembers_its_own_evaluation_and_not_its_siblings() -> None:
    context, current = RequestContext(), Current()
    current.take_snapshot(snapshot(1, f=ON))
    evaluator = current.evaluator
    assert evaluator is not None

    async def serve(user: str) -> str:
        context.remember("f", evaluator, {"targetingKey": user}, None)
        await asyncio.sleep(0)
        memory = context.recall("f")
        assert memory is not None
        assert memory.context is not None
        return str(memory.context["targetingKey"])

    context.remember("f", evaluator, {"targetingKey": "parent"}, None)
    assert await asyncio.gather(*(serve(str(number)) for number in range(5))) == ["0", "1", "2", "3", "4"]
    memory = context.recall("f")
    assert memory is not None
    assert memory.context == {"targetingKey": "parent"}


def test_what_is_remembered_is_bounded_and_keeps_the_latest() -> None:
    context, current = RequestContext(), Current()
    current.take_snapshot(snapshot(1, f=ON))
    assert current.evaluator is not None
    for number in range(10 * REMEMBERED_MAX):
        context.remember(f"flag-{number % 3}", current.evaluator, {"n": number}, None)
    memory = context.memory.get()
    assert memory is not None
    assert memory.depth <= REMEMBERED_MAX
    found = context.recall("flag-1")
    assert found is not None
    assert found.context == {"n": 10 * REMEMBERED_MAX - 1 - (10 * REMEMBERED_MAX - 2) % 3}


# --- disk -------------------------------------------------------------------------------------------------------------


def unpacked(held: Snapshot | None) -> Snapshot:
    """What was read, in the form in which it was written."""
    return msgspec.json.decode(msgspec.json.encode(held), type=Snapshot)


def test_the_last_known_snapshot_survives_and_is_private(tmp_path: Path) -> None:
    # P6
    kept = LastKnown(tmp_path / "place")
    assert kept.load() is None
    assert kept.save(snapshot(4, f=ON))
    assert unpacked(LastKnown(tmp_path / "place").load()) == snapshot(4, f=ON)
    assert stat.S_IMODE((tmp_path / "place" / "snapshot").stat().st_mode) == 0o600


def test_an_older_process_does_not_put_back_the_last_known_snapshot(tmp_path: Path) -> None:
    # P2
    LastKnown(tmp_path).save(snapshot(4, f=ON))
    assert not LastKnown(tmp_path).save(snapshot(3, f=OFF))
    assert unpacked(LastKnown(tmp_path).load()) == snapshot(4, f=ON)


@pytest.mark.parametrize("damage", [slice(0, -1), slice(0, 40), slice(3, None), slice(0, 0)])
def test_a_damaged_last_known_snapshot_is_not_believed(tmp_path: Path, damage: slice) -> None:
    # P6
    kept = LastKnown(tmp_path)
    kept.save(snapshot(4, f=ON))
    content = (tmp_path / "snapshot").read_bytes()
    (tmp_path / "snapshot").write_bytes(content[damage])
    assert kept.load() is None
    assert kept.save(snapshot(5, f=ON))
    assert unpacked(kept.load()) == snapshot(5, f=ON)


def test_a_journal_is_adopted_once_its_owner_is_gone(tmp_path: Path) -> None:
    # P11
    dead, alive, heir = Journal(tmp_path, "dead"), Journal(tmp_path, "alive"), Journal(tmp_path, "heir")
    dead.append([report(1), report(2, result={"id": "pi_1"})])
    alive.append([report(3)])
    assert heir.adopt() == []
    dead.close(delivered=False)
    assert heir.adopt() == [report(1), report(2, result={"id": "pi_1"})]
    assert not (tmp_path / "dead.journal").exists()
    assert read_lines((tmp_path / "heir.journal").read_bytes()) == [report(1), report(2, result={"id": "pi_1"})]
    heir.clear()
    heir.close(delivered=True)
    alive.close(delivered=False)
    assert [path.name for path in tmp_path.glob("*.journal")] == ["alive.journal"]


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_torn_or_damaged_line_is_dropped_and_the_others_are_kept(cut: int, value: int) -> None:
    # P11
    lines = line_of(report(1)) + line_of(report(2, result="x" * 40))
    torn = lines[: len(lines) - min(cut, len(lines))]
    assert read_lines(torn) in ([], [report(1)], [report(1), report(2, result="x" * 40)])
    first = line_of(report(1))
    damaged = bytes([*first[: cut % len(first)], value, *first[cut % len(first) + 1 :]])
    assert [one for one in read_lines(damaged + line_of(report(2))) if one not in (report(1), report(2))] == []


def test_a_read_only_place_is_an_error_to_be_told_and_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"directory|exists"):
        LastKnown(tmp_path / "file" / "below").save(snapshot(1))


# --- batches ----------------------------------------------------------------------------------------------------------


async def test_many_calls_leave_in_few_requests_and_keep_their_answers() -> None:
    sizes: list[int] = []

    async def send(items: list[int]) -> list[int]:
        sizes.append(len(items))
        await asyncio.sleep(0)
        return [item * 2 for item in items]

    batcher: Batcher[int, int] = Batcher(send, lambda item: 1)
    tickets = [batcher.submit(number) for number in range(1000)]
    assert await asyncio.gather(*(ticket.future for ticket in tickets)) == [number * 2 for number in range(1000)]
    assert len(sizes) <= 6
    await batcher.close()


async def test_a_request_that_fails_fails_for_those_in_it_alone() -> None:
    async def send(items: list[int]) -> list[int]:
        if 7 in items:
            raise rescind.Unreachable("away")
        return items

    batcher: Batcher[int, int] = Batcher(send, lambda item: 1)
    with pytest.raises(rescind.Unreachable):
        await batcher.submit(7).future
    assert await batcher.submit(8).future == 8


# --- settings, import, definitions ------------------------------------------------------------------------------------


def test_a_client_says_what_is_missing() -> None:
    with pytest.raises(rescind.ConfigurationError, match=r"url .RESCIND_URL. and token"):
        settings_from(variables={})
    with pytest.raises(rescind.ConfigurationError, match="http://"):
        settings_from(url="localhost:8016", token="t", variables={})


def test_another_token_or_environment_never_finds_this_snapshot() -> None:
    places = {
        settings_from(url=url, token=token, environment=environment, variables={}).place
        for url in ("http://a", "http://b")
        for token in ("s", "t")
        for environment in (None, "staging")
    }
    assert len(places) == 8


def test_construction_starts_no_thread_and_importing_brings_no_http_client() -> None:
    code = (
        "import sys, threading, rescind\n"
        "rescind.Client(url='http://127.0.0.1:9', token='t'); rescind.AsyncClient(url='http://127.0.0.1:9', token='t')\n"
        "assert 'httpx' not in sys.modules and 'anyio' not in sys.modules, 'an HTTP client was imported'\n"
        "assert threading.active_count() == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": ""}, timeout=120)


def test_the_package_has_the_names_that_type_checkers_are_told() -> None:
    stub = ast.parse(Path(rescind.__file__).with_suffix(".pyi").read_text())
    told = {(one.asname, node.module, one.name) for node in stub.body if isinstance(node, ast.ImportFrom) for one in node.names}
    assert {name for name, _, _ in told} == set(rescind.__all__)
    for alias, module, name in told:
        assert alias is not None
        assert module is not None
        assert getattr(rescind, alias) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="no attribute 'Clint'"):
        rescind.Clint  # type: ignore[attr-defined]  # noqa: B018


def test_a_problem_keeps_every_fault_and_what_a_proxy_says_is_an_error_too() -> None:
    body = b'{"code":"invalid","detail":"no","errors":[{"pointer":"/a","detail":"x"}],"suggestion":"b","unknown":1}'
    error = problem_of(422, body, None)
    assert (error.code, error.errors[0].pointer, error.suggestion) == ("invalid", "/a", "b")
    assert problem_of(502, b"<html>", "3").retry_after_seconds == 3
    assert seconds_of("Wed, 21 Oct 2026 07:28:00 GMT") is None


def order_saga() -> Saga:
    order = Saga("order", version="1", flag="checkout.new-flow")

    @order.step(kind="payment.capture", key="capture:{order_id}", proof_of_failure=[ConnectionRefusedError], lease_seconds=5)
    async def capture(order_id: str, amount_cents: int) -> dict[str, str]:
        return {"id": f"{order_id}:{amount_cents}"}

    @capture.compensation
    async def refund(effect: rescind.Effect) -> None: ...

    order.declare(
        "mail",
        kind="mail.confirmation",
        key="mail:{order_id}",
        compensation=executors.Email(
            connection="smtp", to="{{ effect.payload.to }}", subject="s", body="b", dedupe_by="subject"
        ),
    )
    order.declare(
        "webhook",
        kind="partner.webhook",
        key="webhook:{order_id}",
        step_class="irreversible",
        notice=executors.Webhook(connection="partner", path="/retractions"),
        notice_approved=True,
    )
    order.declare(
        "charge",
        kind="charge",
        key="charge:{order_id}",
        compensation=executors.Refund(connection="stripe"),
        currency_code="USD",
        retry={"first_seconds": 0.5},
    )
    return order


def test_a_sagas_document_is_what_the_ledger_reads() -> None:
    # P15
    document = order_saga().document()
    assert check(document) == []
    assert [step["name"] for step in document["steps"]] == ["capture", "mail", "webhook", "charge"]
    assert document["steps"][0]["compensation"] == {"executor": "worker"}
    assert document["steps"][0]["proof_of_failure"] == ["ConnectionRefusedError"]


async def test_a_step_is_still_its_own_function() -> None:
    order = order_saga()
    assert await order.steps["capture"](order_id="7", amount_cents=3) == {"id": "7:3"}
    assert set(order.handlers()) == {"capture"}
    with pytest.raises(rescind.ConfigurationError):
        order.steps["mail"].compensation(print)
    with pytest.raises(rescind.ConfigurationError):
        order.declare("mail", kind="k", key="k")
