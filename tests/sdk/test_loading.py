"""Many flags at once: held packed, read when they are used, and the same to everyone who asks."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
import rescind
from hypothesis import given
from hypothesis import strategies as st
from rescind.current import Current
from rescind.evaluation import Evaluator
from rescind.packed import CHUNK, PackedFlag, read_change, read_snapshot
from rescind.sse import Event, EventParser
from rescind.stream import read_between
from rescind.wire import Change, Kill, Revision, Snapshot, SnapshotFlag, encode

from tests.sdk.conftest import Site
from tests.waiting import until, until_sync

TARGETING = {"if": [{"==": [{"var": "plan"}, "pro"]}, "on", "off"]}
DEFINITION = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off", "targeting": TARGETING}
FLAG = SnapshotFlag(
    definition=DEFINITION,
    off_variant="off",
    epoch=3,
    kills=[Kill(rollback_id="r", off_variant="off", closes_epoch=2, revision=Revision(1, 2), scope={"region": "eu"})],
    max_staleness_seconds=60.0,
    effect_attributes=["plan"],
    on_unreachable="proceed",
    services=["checkout"],
)


def operations(count: int, variant: str) -> list[dict[str, Any]]:
    """Puts of so many flags, whose targeting gives `variant` to those on the plan pro."""
    targeting = {"if": [{"==": [{"var": "plan"}, "pro"]}, variant]}
    definition = {**DEFINITION, "targeting": targeting}
    return [{"op": "put", "flag": {"key": f"flag-{number}", "definition": definition}} for number in range(count)]


def test_a_packed_flag_has_every_field_of_the_wires_and_is_written_as_it_came() -> None:
    # P21
    names = [field.encode_name for field in msgspec.structs.fields(PackedFlag)]
    assert names == [field.encode_name for field in msgspec.structs.fields(SnapshotFlag)]
    content = encode(Snapshot(environment="e", revision=Revision(1, 2), flags={"f": FLAG, "g": SnapshotFlag(definition={})}))
    assert encode(read_snapshot(content)) == content
    packed = read_snapshot(content).flags["f"]
    for name in ("definition", "off_variant", "epoch", "max_staleness_seconds", "on_unreachable"):
        assert getattr(packed, name) == getattr(FLAG, name)
    for name in ("kills", "effect_attributes", "services"):
        assert list(getattr(packed, name)) == getattr(FLAG, name)


async def test_a_snapshot_read_in_stretches_is_the_snapshot_read_at_once() -> None:
    # P21
    flags = {f"flag-{number}": FLAG for number in range(2 * CHUNK + 1)}
    snapshot = Snapshot(
        environment="e", revision=Revision(1, 2), flags=flags, evaluators={"a": {"var": "b"}}, metadata={"m": 1}, bucketing="v2"
    )
    content = encode(snapshot)
    rounds = 0

    async def turn() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    read = await read_between(content)
    turning.cancel()
    assert encode(read) == content
    assert {name: getattr(read, name) for name in read.__struct_fields__ if name != "flags"} == {
        name: getattr(snapshot, name) for name in snapshot.__struct_fields__ if name != "flags"
    }
    assert rounds > 2, "the loop came round meanwhile"


@pytest.mark.parametrize("broken", [b"", b"[]", b'{"environment": "e", "revision": [1, 2], "flags": {"f": 7}}', b'{"flags": {'])
async def test_what_is_no_snapshot_is_refused_in_stretches_too(broken: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        await read_between(broken)


def test_packed_and_unpacked_flags_evaluate_alike() -> None:
    # P7
    snapshot = Snapshot(environment="e", revision=Revision(1, 2), flags={"f": FLAG})
    packed = read_snapshot(encode(snapshot))
    ours, theirs = Evaluator(packed.flags), Evaluator(snapshot.flags)
    for context in ({"plan": "pro", "region": "us"}, {"plan": "pro", "region": "eu"}, {"plan": "free", "region": "us"}, {}):
        assert ours.evaluate("f", context, None) == theirs.evaluate("f", context, None)


@pytest.mark.parametrize("broken", [b"[1]", b"7", b'{"a": "\xff"}', b"[" * 5000 + b"]" * 5000])
def test_a_definition_that_is_no_object_costs_that_flag_alone(broken: bytes) -> None:
    # P6
    head, tail = encode(Snapshot(environment="e", revision=Revision(1, 2), flags={"f": FLAG})).split(b'"flags":{', 1)
    content = head + b'"flags":{"broken":{"definition":' + broken + b"}," + tail
    current = Current()
    try:
        snapshot = read_snapshot(content)
    except msgspec.MsgspecError:
        return  # refused whole, as any snapshot that cannot be read
    current.take_snapshot(snapshot)
    assert current.evaluator is not None
    details = current.evaluator.evaluate("broken", {}, True, "boolean")
    assert (details.value, details.reason) == (True, "ERROR")
    assert current.evaluator.boolean("f", False, {"plan": "pro", "region": "us"}) is True


def test_a_changes_flags_keep_their_own_bytes_alone() -> None:
    change = Change(environment="e", previous=Revision(1, 1), revision=Revision(1, 2), flags={"f": FLAG})
    large = {f"other-{number}": FLAG for number in range(500)}
    packed = read_change(encode(msgspec.structs.replace(change, flags={**large, "f": FLAG})))
    assert packed.revision == change.revision
    assert packed.flags["f"].definition == DEFINITION
    assert memoryview(packed.flags["f"].packed).nbytes == len(encode(DEFINITION))


def test_a_change_of_packed_flags_follows_a_snapshot_of_them() -> None:
    # P1, P2
    current = Current()
    snapshot = Snapshot(environment="e", revision=Revision(1, 1), flags={"f": SnapshotFlag(definition=DEFINITION), "g": FLAG})
    current.take_snapshot(read_snapshot(encode(snapshot)))
    change = Change(environment="e", previous=Revision(1, 1), revision=Revision(1, 2), flags={"f": FLAG}, removed=["g"])
    applied = current.take_change(read_change(encode(change)))
    assert applied is not None
    assert (applied.changed, applied.kill) == (["f", "g"], True)
    assert current.killed == {"f"}
    again = current.take_snapshot(read_snapshot(encode(Snapshot(environment="e", revision=Revision(1, 3), flags={"f": FLAG}))))
    assert again is not None
    assert again.changed == []


@given(
    st.lists(st.sampled_from([b"data: {\xc3\xa9}", b"\r", b"\n", b"\r\n", b"event: change", b"id", b":", b" ", b"\xff"])),
    st.data(),
)
def test_a_stream_gives_the_same_events_however_it_is_cut(pieces: list[bytes], data: st.DataObject) -> None:
    content = b"".join(pieces) + b"\n\n"
    whole = list(EventParser().feed(content))
    parser, events = EventParser(), list[Event]()
    while content:
        size = data.draw(st.integers(1, len(content)))
        events += parser.feed(content[:size])
        content = content[size:]
    assert events == whole


async def test_thousands_of_flags_and_a_change_of_a_thousand_arrive_whole(site: Site) -> None:
    # P1
    path = site.api.within("/changes")
    for start in (0, 1000):
        body = {"operations": operations(2000, "off")[start : start + 1000], "reason": "test"}
        site.api.request("POST", path, json=body)
    context = {"targetingKey": "u", "plan": "pro"}
    async with rescind.AsyncClient(**site.options) as client:
        await until(lambda: client.status().revision == "1.3")
        assert not any(client.boolean(f"flag-{number}", True, context) for number in range(2000))
        seen: set[tuple[bool, ...]] = set()
        client.on_change(
            "*", lambda _: seen.add(tuple(client.boolean(f"flag-{number}", False, context) for number in (0, 999)))
        )
        site.api.request("POST", path, json={"operations": operations(1000, "on"), "reason": "test"})
        await until(lambda: client.status().revision == "1.4")
        assert seen == {(True, True)}
        assert [number for number in range(2000) if client.boolean(f"flag-{number}", False, context)] == list(range(1000))


def test_a_service_that_starts_without_its_server_has_all_flags_from_disk(fragile: Site) -> None:
    # P6
    fragile.api.request("POST", fragile.api.within("/changes"), json={"operations": operations(500, "on"), "reason": "test"})
    with rescind.Client(**fragile.options) as client:
        until_sync(lambda: client.status().revision == "1.2")
        kept = client.core.warm.kept
        until_sync(lambda: (held := kept.load()) is not None and str(held.revision) == "1.2")
    fragile.server.kill()
    with rescind.Client(**fragile.options) as client:
        assert client.status().source == "disk"
        assert all(client.boolean(f"flag-{number}", False, {"plan": "pro"}) for number in range(500))
