"""`rescind dev`: one command, real servers, data that survives, and nothing left behind however it ends."""

from __future__ import annotations

import os
import re
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from openfeature.schemas.protobuf.flagd.evaluation.v2.evaluation_pb2 import ResolveBooleanRequest
from openfeature.schemas.protobuf.flagd.evaluation.v2.evaluation_pb2_grpc import ServiceStub
from openfeature.schemas.protobuf.flagd.sync.v1.sync_pb2 import SyncFlagsRequest
from openfeature.schemas.protobuf.flagd.sync.v1.sync_pb2_grpc import FlagSyncServiceStub

from tests.server.processes import Process, rescind
from tests.waiting import until_sync

PORTS = ("--http-port", "0", "--sync-port", "0", "--evaluation-port", "0")
FLAG = '{"key": "a", "definition": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"}}'


def settings(folder: Path) -> dict[str, str]:
    lines = (folder / "rescind.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def children(pid: int) -> set[int]:
    """Every living descendant of a process."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] != "Z":
                parents[int(entry.name)] = int(fields[1])
    found, frontier = set(), {pid}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return found


def alive(pids: set[int]) -> set[int]:
    living = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            living.add(pid)
    return living


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[list[Process]]:
    """What a test has started; stopped at its end."""
    started: list[Process] = []
    yield started
    for process in started:
        process.end(signal.SIGKILL)


def start(started: list[Process], folder: Path, *more: str) -> Process:
    process = Process(["dev", "--data", str(folder), *PORTS, *more])
    started.append(process)
    process.wait_ready()
    return process


def test_flags_and_token_survive_a_restart(dev: list[Process], tmp_path: Path) -> None:
    first = start(dev, tmp_path / "data")
    before = settings(tmp_path / "data")
    assert rescind("set", FLAG, "--reason", "first", **before).returncode == 0
    assert first.end() == 0
    start(dev, tmp_path / "data")
    after = settings(tmp_path / "data")
    assert after["RESCIND_TOKEN"] == before["RESCIND_TOKEN"]
    shown = rescind("flags", "--json", **after)
    assert '"key":"a"' in shown.stdout, shown


def test_the_settings_are_for_their_owner_alone_and_found_by_the_command_line(dev: list[Process], tmp_path: Path) -> None:
    start(dev, tmp_path / ".rescind")
    assert stat.S_IMODE((tmp_path / ".rescind" / "rescind.env").stat().st_mode) == 0o600
    shown = rescind("status", cwd=tmp_path)
    assert (shown.returncode, "nothing is killed" in shown.stdout) == (0, True), shown


def test_both_environments_are_there(dev: list[Process], tmp_path: Path) -> None:
    url = start(dev, tmp_path / "data").ready
    token = settings(tmp_path / "data")["RESCIND_TOKEN"]
    answer = httpx.get(f"{url}/v1/environments", headers={"authorization": f"Bearer {token}"})
    assert [one["name"] for one in answer.json()["environments"]] == ["development", "production"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind_however_it_ends(dev: list[Process], tmp_path: Path, number: int) -> None:
    process = start(dev, tmp_path / "data")
    with httpx.stream(
        "GET",
        f"{process.ready}/v1/environments/production/stream",
        headers={"authorization": f"Bearer {settings(tmp_path / 'data')['RESCIND_TOKEN']}"},
    ) as stream:
        next(stream.iter_raw())
        servers = children(process.pid)
        assert len(servers) >= 2
        assert process.end(number) == (-number if number == signal.SIGKILL else 0), process.output
    until_sync(lambda: not alive(servers))


def test_an_ephemeral_one_keeps_nothing(dev: list[Process], tmp_path: Path) -> None:
    process = Process(["dev", "--ephemeral", *PORTS], cwd=tmp_path, variables={"TMPDIR": str(tmp_path)})
    dev.append(process)
    process.wait_ready()
    assert any(tmp_path.glob("rescind-*/rescind.env"))
    assert process.end() == 0
    assert [entry for entry in os.listdir(tmp_path) if entry.startswith("rescind-")] == []


def test_a_port_in_use_is_said_in_one_sentence(dev: list[Process], tmp_path: Path) -> None:
    url = start(dev, tmp_path / "one").ready
    port = url.rpartition(":")[2]
    for name in ("http", "sync", "evaluation"):
        other = rescind("dev", "--data", str(tmp_path / "two"), *PORTS, f"--{name}-port", port)
        assert other.returncode == 1
        assert f"127.0.0.1:{port}" in other.stderr
        assert f"RESCIND_{name.upper()}_PORT chooses another" in other.stderr
        assert "Traceback" not in other.stderr


def test_flagds_two_services_answer_for_production_where_it_says(dev: list[Process], tmp_path: Path) -> None:  # P4
    process = start(dev, tmp_path / "data")
    variables = settings(tmp_path / "data")
    places = dict(re.findall(r"(flagd\.\w+)\S* .*?(127\.0\.0\.1:\d+), production", process.output))
    assert rescind("set", FLAG, "--environment", "production", "--reason", "first", **variables).returncode == 0
    with (
        grpc.insecure_channel(places["flagd.evaluation"]) as evaluation,
        grpc.insecure_channel(places["flagd.sync"]) as syncing,
    ):
        stream = FlagSyncServiceStub(syncing).SyncFlags(SyncFlagsRequest(), wait_for_ready=True)
        assert '"a"' in next(stream).flag_configuration
        ask = ServiceStub(evaluation).ResolveBoolean
        assert ask(ResolveBooleanRequest(flag_key="a")).value is True
        killed = rescind("kill", "a", "--env", "production", "--reason", "bad", "--yes", "--wait", "drained", **variables)
        assert (next(stream).flag_configuration.count("rescind.killed"), killed.returncode) == (1, 0), killed
        assert ask(ResolveBooleanRequest(flag_key="a")).variant == "off"
        assert process.end() == 0
        with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
            next(stream)


def test_a_folder_in_use_is_said_in_one_sentence(dev: list[Process], tmp_path: Path) -> None:
    start(dev, tmp_path / "one")
    other = rescind("dev", "--data", str(tmp_path / "one"), *PORTS)
    assert other.returncode == 1
    assert "Traceback" not in other.stderr
