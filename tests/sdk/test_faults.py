"""What networks, servers and disks do to a service that runs for years: it answers, says what is wrong, and comes back.

In all of it evaluation goes on from the snapshot that is held; `load/faults.py` prints how fast.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rescind
from rescind.clock import Clock
from rescind.core import Core
from rescind.settings import settings_from
from rescind.wire import Revision, Snapshot, SnapshotFlag, encode

from tests.sdk.conftest import FLAG, Site
from tests.sdk.proxy import Proxy, proxied
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
STREAM, SNAPSHOT = b"/stream", b"/snapshot"
FLEET = 40
ON = SnapshotFlag(definition={"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"})


def refusal(status: int, *headers: str) -> bytes:
    """An answer as a proxy or a gateway gives it."""
    head = "\r\n".join([f"HTTP/1.1 {status} Whatever", "content-type: text/html", "content-length: 4", *headers])
    return f"{head}\r\nconnection: close\r\n\r\n<no>".encode()


@asynccontextmanager
async def behind(site: Site) -> AsyncIterator[tuple[Proxy, rescind.AsyncClient]]:
    """A client that has the flag, behind a proxy."""
    async with proxied(site) as proxy:
        async with rescind.AsyncClient(**{**site.options, "url": proxy.url}) as client:
            await until(lambda: client.status().connected)
            yield proxy, client


def state(client: rescind.AsyncClient) -> str:
    """In a word."""
    return client.status().state


async def test_a_stream_that_is_half_open_and_silent_is_left_after_two_missed_heartbeats(site: Site) -> None:
    async with behind(site) as (proxy, client):
        turns: list[str] = []
        client.core.notifier.watch(lambda _: turns.append(state(client)))
        proxy.flowing.clear()
        await asyncio.to_thread(site.kill)
        await until(lambda: state(client) == "stale")
        assert "was silent for 11 s" in client.status().last_error
        assert client.boolean(FLAG, False) is True
        proxy.flowing.set()
        await until(lambda: client.boolean(FLAG, True) is False and state(client) == "ready")
        assert turns[0] == "stale", "said when the stream was left, before anything else"


async def test_a_reader_that_is_too_slow_is_let_go_and_comes_back_to_the_newest(site: Site) -> None:
    # P2
    large = {"state": "ENABLED", "variants": {"on": "x" * 200_000, "off": ""}, "defaultVariant": "on"}
    async with behind(site) as (proxy, client):
        seen: list[Revision] = []
        client.on_change("*", lambda change: seen.append(change.revision))
        proxy.flowing.clear()
        for number in range(100):
            await asyncio.to_thread(site.put, "large", definition=large, description=str(number))
        proxy.flowing.set()
        await until(lambda: client.core.current.revision == Revision(1, 101) and client.status().connected)
        assert seen == sorted(set(seen))


async def test_behind_a_proxy_that_buffers_streams_it_polls(site: Site) -> None:
    # P4
    async with proxied(site) as proxy:
        proxy.holds = (STREAM,)
        async with rescind.AsyncClient(**{**site.options, "url": proxy.url}) as client:
            status = client.status()
            assert (status.state, status.polling, status.connected) == ("ready", True, False)
            await asyncio.to_thread(site.kill)
            await until(lambda: client.boolean(FLAG, True) is False)
            polls = [line for _, line in proxy.asked if SNAPSHOT in line]
            assert len(polls) >= 2
            proxy.holds = ()
            await proxy.cut()
            await until(lambda: client.status().connected)
            assert not client.status().polling


@pytest.mark.parametrize("status", [401, 403, 429, 500])
async def test_a_server_that_refuses_leaves_the_last_snapshot_and_is_asked_again(site: Site, status: int) -> None:
    # P6
    async with behind(site) as (proxy, client):
        proxy.answers = {STREAM: refusal(status), SNAPSHOT: refusal(status)}
        await proxy.cut()
        await until(lambda: state(client) == "stale" and client.status().last_error.startswith(f"{status} "))
        assert client.boolean(FLAG, False) is True
        await asyncio.to_thread(site.kill)
        proxy.answers = {}
        await until(lambda: client.boolean(FLAG, True) is False)
        await until(lambda: state(client) == "ready")


async def test_retry_after_is_honoured_before_the_back_off_counts(site: Site) -> None:
    async with behind(site) as (proxy, client):
        proxy.answers = {STREAM: refusal(429, "retry-after: 3"), SNAPSHOT: refusal(429, "retry-after: 3")}
        await proxy.cut()
        await until(lambda: client.status().last_error.startswith("429 "))
        proxy.answers = {}
        await until(lambda: client.status().connected)
        asked = [at for at, line in proxy.asked if STREAM in line or SNAPSHOT in line]
        assert asked[-1] - asked[-2] >= 3


async def test_garbage_is_reported_and_the_snapshot_kept_until_sense_comes(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    # P6
    async with behind(site) as (proxy, client):
        proxy.alter = lambda piece: piece.replace(b'"variants"', b'"vari\xff\xfets"').replace(b'"flags":{', b'"flags":[')
        await asyncio.to_thread(site.kill)
        await until(lambda: client.status().fault_count >= 2)
        assert "cannot be read" in client.status().last_error
        assert client.boolean(FLAG, False) is True
        proxy.alter = bytes
        await until(lambda: client.boolean(FLAG, True) is False)
        assert any("keeping revision 1.1" in record.getMessage() for record in caplog.records)


async def test_an_event_that_breaks_off_in_the_middle_is_not_believed(site: Site) -> None:
    # P1
    async with behind(site) as (proxy, client):
        cuts = itertools.count()

        def cut(piece: bytes) -> bytes:
            """The first half of the first change, then the end."""
            if b"event: change" in piece or (b"defaultVariant" in piece and next(cuts) == 0):
                return piece[: len(piece) // 2]
            return piece

        proxy.alter = cut
        await asyncio.to_thread(site.kill)
        await proxy.cut()
        await until(lambda: client.boolean(FLAG, True) is False)
        assert client.core.current.revision == Revision(1, 2)


class JumpingClock(Clock):
    """Its wall clock goes where it is sent; its monotonic clock may be moved on."""

    def __init__(self) -> None:
        self.wall = datetime.now(UTC)
        self.later = 0.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return super().monotonic() + self.later


async def test_a_wall_clock_that_jumps_changes_nothing_and_staleness_goes_by_the_other(site: Site) -> None:
    # P6
    site.put(max_staleness_seconds=60)
    site.put("steady")
    clock = JumpingClock()
    core = Core(settings_from(**site.options), clock=clock)
    core.launch()
    assert await core.wait_ready(60)

    def served(key: str = FLAG) -> tuple[Any, str]:
        assert core.current.evaluator is not None
        details = core.current.evaluator.evaluate(key, {}, None, "boolean")
        return details.value, details.reason

    assert served() == (True, "STATIC")
    for year in (1971, 2100):
        clock.wall = datetime(year, 1, 1, tzinfo=UTC)
        assert served() == (True, "STATIC")
    clock.later = 61.0
    assert served() == (False, "STALE")
    assert served("steady") == (True, "STATIC")
    await until(lambda: served() == (True, "STATIC"))  # the next heartbeat says that it is current
    await core.close(2.0)
    clock.later = 200.0
    assert served() == (False, "STALE")


async def test_a_flag_with_a_limit_is_off_in_a_cut_off_instance_and_on_again_after(site: Site) -> None:
    # P6
    await asyncio.to_thread(site.put, max_staleness_seconds=1)
    async with behind(site) as (proxy, client):
        await until(lambda: client.boolean(FLAG, False))
        proxy.flowing.clear()
        await until(lambda: client.boolean_details(FLAG, True).reason == "STALE")
        assert client.boolean(FLAG, True) is False
        proxy.flowing.set()
        await until(lambda: client.boolean(FLAG, False) is True)


async def test_a_snapshot_from_disk_is_of_unknown_age_until_the_server_was_heard(fragile: Site) -> None:
    # P6
    fragile.put(max_staleness_seconds=3600)
    fragile.put("steady")
    async with rescind.AsyncClient(**fragile.options) as client:
        await until(lambda: client.boolean("steady", False) and client.boolean(FLAG, False))
    fragile.server.kill()
    client = rescind.AsyncClient(**fragile.options)
    assert (client.boolean("steady", False), client.boolean_details(FLAG, True).reason) == (True, "STALE")
    status = client.status()
    assert (status.source, status.state, status.saved_at is not None) == ("disk", "stale", True)
    await asyncio.to_thread(fragile.server.start)
    await until(lambda: client.boolean(FLAG, False) is True)
    await client.close()


def run_script(script: str, site: Site, *, files_bytes_max: int | None = None) -> subprocess.CompletedProcess[str]:
    """A service of a few lines, whose files may not become larger than that."""

    def limit() -> None:
        if files_bytes_max is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (files_bytes_max, files_bytes_max))

    options = {**site.options, "state_dir": str(site.state_dir)}
    head = f"import os, rescind, socket, sys, time\noptions = {options!r}\nFLAG = {FLAG!r}\n"
    command = [sys.executable, "-W", "error", "-c", head + script]
    return subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, timeout=120, check=False)


DISK = """
client = rescind.Client(**options)
assert client.wait_ready(60)
end = time.monotonic() + 60
while not client.status().disk_error and time.monotonic() < end:
    time.sleep(0.01)
with client.effect("payment.capture", flag=FLAG, key="capture:1", payload={}) as effect:
    effect.result = 1
client.close()
print(client.boolean(FLAG, False), client.status().disk_error)
"""


async def test_a_full_disk_is_said_and_all_else_works(site: Site) -> None:
    ended = await asyncio.to_thread(lambda: run_script(DISK, site, files_bytes_max=0))
    assert ended.stdout.startswith("True [Errno 27] "), ended
    assert site.statuses() == ["succeeded"]
    assert not any(path.name.startswith("snapshot") for path in site.state_dir.rglob("*")), "nothing half written is left"


async def test_a_home_that_cannot_be_written_is_said_and_all_else_works(site: Site) -> None:
    site.state_dir = Path("/proc/rescind")
    ended = await asyncio.to_thread(lambda: run_script(DISK, site))
    assert ended.stdout.startswith("True [Errno "), ended
    assert site.statuses() == ["succeeded"]


SAVE = """
import msgspec
from pathlib import Path
from rescind.lastknown import LastKnown
from rescind.wire import Revision, Snapshot
kept = LastKnown(Path(sys.argv[1]))
for n in range(1, 200):
    try:
        kept.save(Snapshot(environment="e", revision=Revision(1, n), metadata={"x": "y" * 10_000}))
    except BlockingIOError:
        pass
    print(kept.load().revision.n if kept.load() else 0)
"""


async def test_processes_that_share_one_cache_file_never_tear_it_or_put_it_back(tmp_path: Path) -> None:
    # P2
    command = [sys.executable, "-c", "import sys\n" + SAVE, str(tmp_path / "place")]
    processes = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [(await process.communicate())[0] for process in processes]
    for output in outputs:
        read = [int(line) for line in output.split()]
        assert len(read) == 199
        assert read == sorted(read)
    assert {process.returncode for process in processes} == {0}


async def test_a_sibling_that_was_stopped_in_the_middle_of_writing_holds_nobody_up(site: Site) -> None:
    script = (
        "import fcntl, sys\nfile = open(sys.argv[1], 'ab')\nfcntl.flock(file, fcntl.LOCK_EX)\nprint('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    async with rescind.AsyncClient(**site.options) as client:
        place = site.state_dir / client.core.settings.place
        await until(lambda: (place / "snapshot").exists())
        command = [sys.executable, "-c", script, str(place / "lock")]
        sibling = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert sibling.stdin is not None
        assert sibling.stdout is not None
        assert await sibling.stdout.readline() == b"locked\n"
        await asyncio.to_thread(site.kill)
        await until(lambda: client.boolean(FLAG, True) is False)
        assert client.core.warm.kept.load().revision == Revision(1, 1)  # type: ignore[union-attr]
        sibling.stdin.close()
        await sibling.wait()
        await until(lambda: client.core.warm.kept.load().revision == Revision(1, 2))  # type: ignore[union-attr]


HANGING_DNS = """
import asyncio, threading
def hang(*arguments, **more):
    asked.set()
    threading.Event().wait()
asked, socket.getaddrinfo = threading.Event(), hang
options["url"] = "http://flags.invalid:8016"
client = rescind.Client(**options)
begun = time.monotonic()
assert client.wait_ready(0.2) is False
assert asked.wait(60)
client.close()
async def main():
    async with rescind.AsyncClient(**options) as client:
        assert client.boolean(FLAG, True) is True
        while "name server" not in client.status().last_error:
            await asyncio.sleep(0.01)
    print(client.status().last_error)
asyncio.run(main())
rescind.Client(**options).ensure_started()
print("the end")
"""


async def test_a_name_server_that_hangs_hangs_neither_the_client_nor_the_exit(site: Site) -> None:
    # P6
    ended = await asyncio.to_thread(lambda: run_script(HANGING_DNS, site))
    assert ended.stdout.splitlines()[-1:] == ["the end"], ended
    assert "the name server hangs" in ended.stdout
    assert (ended.returncode, ended.stderr.count("Traceback")) == (0, 0), ended


async def test_a_fleet_that_lost_its_server_at_once_comes_back_whole(site: Site) -> None:
    # P2, P4
    async with proxied(site) as proxy, AsyncExitStack() as stack:
        clients = [rescind.AsyncClient(**{**site.options, "url": proxy.url}) for _ in range(FLEET)]
        await asyncio.gather(*(stack.enter_async_context(client) for client in clients))
        seen: list[list[Revision]] = []
        for client in clients:
            heard: list[Revision] = []
            seen.append(heard)
            client.on_change("*", lambda change, heard=heard: heard.append(change.revision))  # type: ignore[misc]
        await proxy.cut()
        await asyncio.to_thread(site.kill)
        await until(lambda: all(not client.boolean(FLAG, True) and client.status().connected for client in clients))
        assert all(heard == [Revision(1, 2)] for heard in seen)


@pytest.mark.parametrize("form", ["flagd", "flagd file", "snapshot file"])
async def test_a_first_start_without_a_server_serves_what_the_service_brings(fragile: Site, tmp_path: Path, form: str) -> None:
    # P2, P6
    document: dict[str, Any] = {"flags": {FLAG: ON.definition}, "metadata": {"from": "bootstrap"}}
    snapshot = Snapshot(environment=fragile.environment, revision=Revision(1, 1), flags={FLAG: ON})
    path = tmp_path / "bootstrap.json"
    path.write_bytes(encode(snapshot) if form == "snapshot file" else encode(document))
    fragile.server.kill()
    options = {**fragile.options, "bootstrap": document if form == "flagd" else str(path)}
    client = rescind.AsyncClient(**options)
    assert client.boolean(FLAG, False) is True
    status = client.status()
    assert (status.source, status.state) == ("bootstrap", "stale")
    assert status.revision == ("1.1" if form == "snapshot file" else "0.0")
    await asyncio.to_thread(fragile.server.start)
    await asyncio.to_thread(fragile.kill)
    await until(lambda: client.boolean(FLAG, True) is False)
    assert (client.status().source, client.status().revision) == ("network", "1.2")
    await client.close()
    again = rescind.AsyncClient(**options)
    assert (again.boolean(FLAG, True), again.status().source) == (False, "disk")
    await again.close()


async def test_a_bootstrap_of_another_environment_gives_way_whatever_its_revision(site: Site) -> None:
    # P2
    wrong = msgspec.to_builtins(Snapshot(environment="elsewhere", revision=Revision(9, 9), flags={FLAG: ON}))
    await asyncio.to_thread(site.kill)
    async with rescind.AsyncClient(**site.options, bootstrap=wrong) as client:
        await until(lambda: client.status().source == "network")
        assert (client.boolean(FLAG, True), client.status().revision) == (False, "1.2")


@pytest.mark.parametrize("wrong", ["/nowhere/flags.json", {"flags": 7}, {"flags": {}, "revision": "x"}, {"flags": {1: object}}])
def test_a_bootstrap_that_cannot_be_read_is_said_and_costs_nothing_else(tmp_path: Path, wrong: Any) -> None:
    # P6
    client = rescind.Client(url="http://127.0.0.1:9", token="t", environment="e", state_dir=tmp_path, bootstrap=wrong)
    assert client.boolean(FLAG, True) is True
    assert client.status().bootstrap_error
    assert client.status().state == "not_ready"
    client.close()
    assert client.status().state == "closed"


def test_construction_does_no_io_and_starts_no_thread(tmp_path: Path) -> None:
    script = (
        "import sys, threading\nallowed = False\n"
        "import rescind, rescind.client\n"
        "def watch(event, arguments):\n"
        "    if event.split('.')[0] in ('open', 'socket', 'subprocess', 'os') and event != 'os.listdir':\n"
        "        print(event, arguments)\n"
        f"options = dict(url='http://flags.invalid', token='t', environment='e', state_dir={str(tmp_path / 'none')!r})\n"
        "rescind.Client(**options)\n"
        "sys.addaudithook(watch)\n"
        "clients = [rescind.Client(**options), rescind.AsyncClient(**options)]\n"
        "print(threading.active_count())\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert [line for line in ended.stdout.splitlines() if not line.startswith("socket.gethostname")] == ["1"]
    assert not os.listdir(tmp_path)


async def test_closing_is_bounded_whatever_hangs(site: Site) -> None:
    async with proxied(site) as proxy:
        client = rescind.Client(**{**site.options, "url": proxy.url})
        assert await asyncio.to_thread(client.wait_ready, 60)
        proxy.flowing.clear()
        await asyncio.to_thread(client.close)
        await asyncio.to_thread(client.close)
        assert client._thread is None
        proxy.flowing.set()
