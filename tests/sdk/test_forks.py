"""A client in a process that forks: the child is warm at once, an instance of its own, and disturbs its parent in nothing."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from rescind.journal import Journal

from runtime.embedded import EmbeddedValkey
from tests.children import die_with_parent
from tests.sdk.conftest import Site
from tests.waiting import until, until_sync

ROOT = Path(__file__).resolve().parents[2]
PORT = re.compile(r"127\.0\.0\.1:([1-9]\d*)")
WAYS = {way: ("tests.sdk.forking.process", way) for way in ("multiprocessing", "os", "locked", "twice")} | {
    "in C": ("tests.sdk.forking.in_c",)
}
GUNICORN = ("gunicorn", "--preload", "--workers", "2", "--bind", "127.0.0.1:0")
UWSGI = (
    "uwsgi",
    "--http-socket",
    "127.0.0.1:0",
    "--master",
    "--processes",
    "2",
    "--enable-threads",
    "--need-app",
    "--die-on-term",
    "--py-call-uwsgi-fork-hooks",
)
SERVERS = {
    "gunicorn": (*GUNICORN, "tests.sdk.forking.shop:wsgi"),
    "gunicorn with uvicorn's workers": (*GUNICORN, "-k", "uvicorn_worker.UvicornWorker", "tests.sdk.forking.shop:asgi"),
    "the same with an AsyncClient": (*GUNICORN, "-k", "uvicorn_worker.UvicornWorker", "tests.sdk.forking.modern:asgi"),
    "uWSGI": (*UWSGI, "--module", "tests.sdk.forking.shop:wsgi"),
}
AT_ONCE = 8
"""Requests, so that no worker takes them all."""
Line = dict[str, Any]


def variables(site: Site, **more: str) -> dict[str, str]:
    """The environment of a service of this site."""
    told = {
        "RESCIND_URL": site.server.url,
        "RESCIND_TOKEN": site.token,
        "RESCIND_ENVIRONMENT": site.environment,
        "RESCIND_STATE_DIR": str(site.state_dir),
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return {**os.environ, **told, **more}


@contextmanager
def service(command: tuple[str, ...], site: Site, log: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes to `log`, ended with the test."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=variables(site, **more), stdout=file, stderr=file, preexec_fn=die_with_parent
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@pytest.mark.parametrize("way", WAYS)
async def test_a_child_goes_on_by_itself_and_leaves_its_parent_alone(site: Site, way: str) -> None:
    # P2, P4
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *WAYS[way], cwd=ROOT, env=variables(site),
        stdout=subprocess.PIPE, preexec_fn=die_with_parent,
    )  # fmt: skip
    assert process.stdout is not None

    async def lines(*names: str) -> dict[str, Line]:
        assert process.stdout is not None
        said = [msgspec.json.decode(await process.stdout.readline()) for _ in names]
        assert {line["what"] for line in said} == set(names)
        return {line["what"]: line for line in said}

    ready = (await lines("parent"))["parent"]
    warm = (await lines("child"))["child"]
    assert (warm["value"], warm["source"], warm["revision"]) == (True, "network", ready["revision"])
    await asyncio.to_thread(site.kill)
    killed = await lines("child saw the kill", "parent saw the kill")
    await asyncio.to_thread(site.lift)
    lifted = await lines("child saw the lift", "parent saw the lift", "child did an effect", "parent is still there")
    assert await process.wait() == 0
    said = [ready, warm, *killed.values(), *lifted.values()]
    names = {line["pid"]: {other["instance"] for other in said if other["pid"] == line["pid"]} for line in said}
    assert [len(own) for own in names.values()] == [1, 1], "each process has one name"
    assert len(set.union(*names.values())) == 2, "and no two have the same"
    assert lifted["parent is still there"]["last_error"] == ""
    assert [effect["result"]["pid"] for effect in site.effects()] == [warm["pid"]]


@pytest.mark.parametrize("name", SERVERS)
async def test_workers_of_real_servers_have_streams_of_their_own(site: Site, tmp_path: Path, name: str) -> None:
    # P2, P4
    log = tmp_path / "log"
    with service(SERVERS[name], site, log):
        port = (await until(lambda: PORT.search(log.read_text())))[1]

        async def ask() -> Line:
            async with httpx.AsyncClient() as client:
                line: Line = (await client.get(f"http://127.0.0.1:{port}/", timeout=60)).json()
                return line

        async def look(value: bool) -> list[Line]:
            """What both workers say, once they have the value and a stream."""
            seen: dict[int, Line] = {}
            async with asyncio.timeout(60):
                while len(seen) < 2:
                    lines = await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
                    seen |= {line["pid"]: line for line in lines if line["value"] is value and line["connected"]}
            return list(seen.values())

        on = await look(True)
        assert len({line["instance"] for line in on}) == 2
        await asyncio.to_thread(site.kill)
        off = await look(False)
        assert {line["instance"] for line in off} == {line["instance"] for line in on}
        rows = site.api.request("GET", site.api.within("/instances"), params={"limit": 1000})["instances"]
        assert {line["instance"] for line in on} <= {row["instance"] for row in rows if row["connected"]}


async def test_celerys_processes_have_streams_of_their_own(site: Site, tmp_path: Path, valkey_server: EmbeddedValkey) -> None:
    # P2, P4
    worker = ("celery", "-A", "tests.sdk.forking.tasks", "worker", "--pool", "prefork", "-c", "2", "-Q", site.environment)
    broker = {"BROKER": valkey_server.url}
    with service(worker, site, tmp_path / "log", **broker):
        asking = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.sdk.forking.ask", site.environment, cwd=ROOT, env=variables(site, **broker),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=die_with_parent,
        )  # fmt: skip

        async def look(value: bool) -> str | None:
            """The instance of the process that took the task, if it has the value and a stream."""
            assert asking.stdin is not None
            assert asking.stdout is not None
            asking.stdin.write(b"look\n")
            line = msgspec.json.decode(await asking.stdout.readline())
            return line["instance"] if line["value"] is value and line["connected"] else None

        first = await until(lambda: look(True))
        await asyncio.to_thread(site.kill)
        later = await until(lambda: look(False))
        assert "+" in first
        assert "+" in later
        assert asking.stdin is not None
        asking.stdin.close()
        await asking.wait()


def test_a_journal_can_be_adopted_from_a_dead_parent_whose_child_lives(tmp_path: Path) -> None:
    # P11
    command = [sys.executable, "-m", "tests.sdk.forking.orphan", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "child\n"
        process.wait(30)
        sibling = Journal(tmp_path, "sibling")
        found = until_sync(sibling.adopt)
        sibling.close(delivered=True)
        assert [report.effect_id for report in found] == ["e"]
