"""# P21: what version 0.1.0 put on the wire is read today, field by field, and today's server still answers in that shape.

The fixtures were recorded on a real server by tools/golden.py and are never edited.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rescind import wire

GOLDEN = Path(__file__).parent / "golden"
RELEASES = sorted(path.name for path in GOLDEN.iterdir())
TOOL = Path(__file__).resolve().parents[2] / "tools" / "golden.py"
REQUESTS: dict[str, type] = {
    "heartbeat": wire.InstanceBeat,
    "acknowledge": wire.InstanceBeat,
    "admit": wire.AdmitRequest,
    "replay": wire.AdmitRequest,
    "admit-killed": wire.AdmitRequest,
    "report": wire.ReportRequest,
    "tasks-claim": wire.TaskClaim,
    "tasks-heartbeat": wire.TaskHeartbeat,
    "tasks-report": wire.TaskReportRequest,
}
ANSWERS: dict[str, type] = {
    "snapshot": wire.Snapshot,
    "snapshot-killed": wire.Snapshot,
    "heartbeat": wire.InstanceBeatAnswer,
    "acknowledge": wire.InstanceBeatAnswer,
    "admit": wire.AdmitAnswer,
    "replay": wire.AdmitAnswer,
    "admit-killed": wire.AdmitAnswer,
    "report": wire.ReportAnswer,
    "tasks-claim": wire.TaskClaimAnswer,
    "tasks-report": wire.TaskReportAnswer,
    "unknown-flag": wire.ProblemBody,
}
EVENTS: dict[str, type] = {"snapshot": wire.Snapshot, "change": wire.Change, "heartbeat": wire.Heartbeat}


def exchanges(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem.split("-", 1)[1]: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.iterdir())}


def lost(recorded: Any, read: Any, where: str = "") -> list[str]:
    """Where what was recorded is missing or different in what was read."""
    if isinstance(recorded, dict) and isinstance(read, dict):
        return [fault for key in recorded for fault in lost(recorded[key], read.get(key), f"{where}/{key}")]
    if isinstance(recorded, list) and isinstance(read, list) and len(recorded) == len(read):
        return [fault for n, pair in enumerate(zip(recorded, read, strict=True)) for fault in lost(*pair, f"{where}/{n}")]
    return [] if recorded == read else [f"{where}: {recorded!r} was read as {read!r}"]


def read_back(message: Any, reader: type) -> Any:
    return msgspec.to_builtins(msgspec.convert(message, reader))


@pytest.mark.parametrize("release", RELEASES)
def test_every_recorded_message_is_read_whole_by_todays_readers(release: str) -> None:
    recorded = exchanges(GOLDEN / release)
    faults = []
    for name, reader in REQUESTS.items():
        faults += lost(recorded[name]["request"], read_back(recorded[name]["request"], reader), f"{name}/request")
    for name, reader in ANSWERS.items():
        faults += lost(recorded[name]["answer"], read_back(recorded[name]["answer"], reader), f"{name}/answer")
    for event in recorded["stream"]["events"]:
        faults += lost(event["data"], read_back(event["data"], EVENTS[event["event"]]), f"stream/{event['event']}")
    assert faults == []


@pytest.mark.parametrize("reader", [*REQUESTS.values(), *ANSWERS.values(), *EVENTS.values()])
def test_a_field_from_a_newer_peer_is_ignored(reader: type) -> None:
    recorded = exchanges(GOLDEN / RELEASES[-1])
    messages = [recorded[name]["request"] for name, kind in REQUESTS.items() if kind is reader]
    messages += [recorded[name]["answer"] for name, kind in ANSWERS.items() if kind is reader]
    messages += [event["data"] for event in recorded["stream"]["events"] if EVENTS[event["event"]] is reader]
    assert messages
    for message in messages:
        assert read_back({**message, "from_the_future": {"a": 1}}, reader) == read_back(message, reader)


def shape(value: Any) -> Any:
    """Keys and types, without the values; lists by their first element, null as whatever it may become."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def missing(old: Any, new: Any, where: str) -> list[str]:
    """What an old client relies on that today's answer lacks or types otherwise."""
    if isinstance(old, dict):
        if not isinstance(new, dict):
            return [f"{where} is no object any more"]
        return [fault for key in old for fault in missing(old[key], new.get(key, "absent"), f"{where}/{key}")]
    if isinstance(old, list):
        return missing(old[0], new[0], f"{where}/0") if old and isinstance(new, list) and new else []
    return [] if old == new or old == "NoneType" else [f"{where}: was {old}, is {new}"]


async def test_todays_server_answers_in_the_shape_of_every_release(tmp_path: Path) -> None:
    tool = await asyncio.create_subprocess_exec(sys.executable, str(TOOL), str(tmp_path), stderr=asyncio.subprocess.DEVNULL)
    assert await tool.wait() == 0
    today = exchanges(tmp_path)
    faults = []
    for release in RELEASES:
        for name, old in exchanges(GOLDEN / release).items():
            new = today[name]
            if name == "stream":
                pairs = {event["event"]: event for event in new["events"]}
                for event in old["events"]:
                    faults += missing(shape(event), shape(pairs[event["event"]]), f"{release} stream/{event['event']}")
            else:
                assert old["status"] == new["status"], f"{release} {name}"
                faults += missing(shape(old["answer"]), shape(new["answer"]), f"{release} {name}")
    assert faults == []
