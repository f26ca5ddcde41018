"""The whole system as processes of their own, as a user starts them, for the benchmarks that ask through HTTP.

    with system() as site:
        site.api.request(...)

PostgreSQL keeps fsync on. What a process has spent of the CPU is read from /proc: on a machine that others use as well it
says more than the clock on the wall.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rescind.settings import ClientSettings, settings_from
from rescind.transport import Api

FLAG = "checkout.new-flow"
ENVIRONMENT = "production"
READY = " is ready: "
STOP_SECONDS = 20.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Site:
    """A running `rescind dev`, and an admin's way to it."""

    def __init__(self, url: str, token: str, pid: int, database_url: str) -> None:
        self.url = url
        self.token = token
        self.pid = pid
        self.database_url = database_url
        self.api = Api(url, token, ENVIRONMENT)

    def settings(self, state_dir: Path, instance: str | None = None) -> ClientSettings:
        """What a client of it is made with."""
        return settings_from(
            url=self.url, token=self.token, environment=ENVIRONMENT, service="load", state_dir=state_dir, instance=instance
        )

    def put(self, key: str = FLAG) -> None:
        """A boolean flag that is on for everyone."""
        definition = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}
        flag = {"key": key, "definition": definition}
        self.api.request("PUT", self.api.within(f"/flags/{key}"), json={"flag": flag, "reason": "load"})

    def server_seconds(self) -> float:
        """CPU that the server's process has spent."""
        return cpu_seconds([self.pid])

    def database_seconds(self) -> float:
        """CPU that PostgreSQL and Valkey have spent."""
        return cpu_seconds(descendants(self.pid))


@contextmanager
def system(*options: str) -> Iterator[Site]:
    """`rescind dev` in a temporary folder, with one flag that is on; stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="rescind-load-", ignore_cleanup_errors=True) as folder:
        ports = ("--http-port", "0", "--sync-port", "0", "--evaluation-port", "0")
        command = [sys.executable, *options, "-m", "rescind.cli", "dev", "--data", folder, *ports]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                url = next((line.split(READY)[1].strip() for line in process.stdout if READY in line), None)
                if url is None:
                    raise SystemExit("the server did not start")
                lines = (Path(folder) / "rescind.env").read_text().splitlines()
                written = dict(line.split("=", 1) for line in lines)
                database_url = shlex.split(written["RESCIND_DATABASE_URL"])[0]
                site = Site(url, written["RESCIND_TOKEN"], process.pid, database_url)
                site.put()
                yield site
                site.api.close()
            finally:
                process.terminate()
                process.wait(STOP_SECONDS)


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU that these processes have spent, and the children that they have waited for."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / TICKS_PER_SECOND


def descendants(pid: int) -> list[int]:
    """The processes below `pid`."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except FileNotFoundError:
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found, left = [], [pid]
    while left:
        left += (below := children.get(left.pop(), []))
        found += below
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed; `values` is not empty."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
