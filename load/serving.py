"""Remote evaluation over HTTP against a constant reply by the same server process: requests a second, and their ratio.

    ./run python load/serving.py [--seconds 5] [--repeats 5] [--flags 100]

One server process with one worker on a database of its own; its application is the real one, behind a function that answers a
constant at one path. 64 connections in a closed loop ask with the same request, by turns, so that a machine that drifts drifts
for all. The client is wrk (Debian: `apt-get install wrk`). The marks are those of performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import uvloop
from msgspec import Struct
from rescind import wire
from rich.console import Console
from rich.table import Table

from flagd.core.changes import Put
from load.peers.flags import Rule, user
from load.peers.ours import context_of, definition_of
from load.system import ENVIRONMENT, cpu_seconds
from runtime import tokens
from runtime.embedded import EmbeddedPostgres, EmbeddedValkey
from runtime.settings import Settings
from server.app import build
from server.dev import prepare
from server.parts import Parts
from server.running import Running, bind
from server.serve import serve_with

CONNECTIONS = 64
THREADS = 1
RATIO = 0.75
BULK_PER_SECOND = 2_000
CONSTANT = "/constant"
CONTEXT = context_of(user(1))
EVALUATE = "/ofrep/v1/evaluate/flags"
REPLY = b'{"key":"flag-1","reason":"SPLIT","variant":"off","value":false}'
STOP_SECONDS = 20.0


class Ready(Struct, frozen=True):
    """What the server says of itself, on its first line."""

    url: str
    token: str


class Measured(Struct, frozen=True):
    """Of one run of wrk."""

    per_second: float
    cpu: float
    """Microseconds of the server's CPU for one request."""


def beside_a_constant(app: Any) -> Any:
    """The application, behind a function that answers a constant at one path."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(REPLY)).encode())]

    async def composed(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != CONSTANT:
            await app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": REPLY})

    return composed


async def serve(folder: Path, flags: int) -> None:
    """A server with that many flags, each of a list of countries, a plan and a split, until it is told to stop."""
    with EmbeddedPostgres(folder / "postgres") as postgres, EmbeddedValkey(folder / "valkey") as valkey:
        await asyncio.to_thread(lambda: asyncio.run(prepare(postgres.url, None)))
        parts = await Parts.open(Settings(database_url=postgres.url, redis_url=valkey.url, log_level="warning"))
        try:
            await parts.flags.apply(ENVIRONMENT, [put(number) for number in range(flags)], actor="load", reason="load")
            async with parts.pg.transaction() as connection:
                token, _ = await tokens.create(connection, "load", ENVIRONMENT, ["evaluate"], "load")
            listening = bind("127.0.0.1", 0)
            ready = Ready(f"http://127.0.0.1:{listening.getsockname()[1]}", token)
            server = Running(beside_a_constant(build(parts)), parts.end_streams)
            await serve_with(server, listening, lambda: print(msgspec.json.encode(ready).decode(), flush=True))
        finally:
            await parts.close()


def put(number: int) -> Put:
    """One of the flags."""
    key = f"flag-{number}"
    return Put(flag=wire.Flag(key=key, definition=definition_of([Rule(("AT", "CH", "DE", f"X{number}"), "pro")])))


@contextmanager
def served(flags: int) -> Iterator[tuple[Ready, int]]:
    """The server as a process of its own, with its process id; stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="rescind-load-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, __file__, "--serve", folder, "--flags", str(flags)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line:
                    raise SystemExit("the server did not start")
                yield msgspec.json.decode(line, type=Ready), process.pid
            finally:
                process.terminate()
                process.wait(STOP_SECONDS)


class Client:
    """wrk, with one POST."""

    def __init__(self, ready: Ready, pid: int, folder: Path, seconds: int) -> None:
        self._ready = ready
        self._pid = pid
        self._folder = folder
        self._seconds = seconds

    def script(self, name: str, **headers: str) -> Path:
        """The request, as wrk's Lua."""
        body = msgspec.json.encode({"context": CONTEXT}).decode()
        given = {"Authorization": f"Bearer {self._ready.token}", "Content-Type": "application/json", **headers}
        lines = [f"wrk.headers[{name!r}] = [==[{value}]==]" for name, value in given.items()]
        path = self._folder / f"{name}.lua"
        path.write_text("\n".join([f'wrk.method = "POST"\nwrk.body = [==[{body}]==]', *lines]))
        return path

    def ask(self, path: str, script: Path) -> Measured:
        """Requests a second, of which none may fail."""
        before = cpu_seconds([self._pid])
        command = ["wrk", f"-t{THREADS}", f"-c{CONNECTIONS}", f"-d{self._seconds}s", "-s", str(script), self._ready.url + path]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if "Non-2xx" in text or "Socket errors" in text:
            raise SystemExit(text)
        count = re.search(r"(\d+) requests in", text)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
        assert count is not None, text
        assert rate is not None, text
        return Measured(float(rate[1]), (cpu_seconds([self._pid]) - before) * 1e6 / int(count[1]))


def measure(client: Client, ready: Ready, repeats: int) -> dict[str, list[Measured]]:
    """Each kind of request in its turn, so often."""
    plain = client.script("plain")
    headers = {"authorization": f"Bearer {ready.token}"}
    bulk = httpx.post(ready.url + EVALUATE, json={"context": CONTEXT}, headers=headers).raise_for_status()
    known = client.script("known", **{"If-None-Match": bulk.headers["etag"]})
    kinds = {
        "constant": (CONSTANT, plain),
        "single": (f"{EVALUATE}/flag-1", plain),
        "bulk": (EVALUATE, plain),
        "bulk, 304": (EVALUATE, known),
    }
    found: dict[str, list[Measured]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind, (path, script) in kinds.items():
            found[kind].append(client.ask(path, script))
    return found


def show(found: dict[str, list[Measured]], flags: int) -> None:
    """Medians, and the ratio of each round."""
    table = Table("what", "requests/s", "CPU of the server, µs", "mark", title=f"{CONNECTIONS} connections, one worker")
    median = {kind: statistics.median(one.per_second for one in runs) for kind, runs in found.items()}
    names = {
        "constant": ("a constant reply", ""),
        "single": ("one evaluation with a token", ""),
        "bulk": (f"all of {flags} flags, answered in full", f"{BULK_PER_SECOND:,}"),
        "bulk, 304": (f"all of {flags} flags, not modified", ""),
    }
    for kind, (name, mark) in names.items():
        cpu = statistics.median(one.cpu for one in found[kind])
        table.add_row(name, f"{median[kind]:,.0f}", f"{cpu:.1f}", mark)
    ratios = [one.per_second / base.per_second for one, base in zip(found["single"], found["constant"], strict=True)]
    cpus = [base.cpu / one.cpu for one, base in zip(found["single"], found["constant"], strict=True)]
    table.add_row("one evaluation / constant", f"{statistics.median(ratios):.2f}", f"{statistics.median(cpus):.2f}", f"{RATIO}")
    Console().print(table)


def main() -> int:
    """Parse the arguments, run, print. With `--serve` this is the server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--flags", type=int, default=100)
    parser.add_argument("--serve", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(serve(arguments.serve, arguments.flags))
        return 0
    if shutil.which("wrk") is None:
        raise SystemExit("this needs wrk, a load generator: apt-get install wrk")
    with served(arguments.flags) as (ready, pid), tempfile.TemporaryDirectory() as folder:
        found = measure(Client(ready, pid, Path(folder), arguments.seconds), ready, arguments.repeats)
    show(found, arguments.flags)
    return 0


if __name__ == "__main__":
    os.environ.pop("OTEL_EXPORTER_OTLP_ENDPOINT", None)
    sys.exit(main())
