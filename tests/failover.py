"""A primary that is lost and a synchronous standby that takes its place."""

from __future__ import annotations

import os
import signal
from typing import NamedTuple

from runtime.embedded import EmbeddedPostgres, EmbeddedStandby
from runtime.postgres import connect
from tests.conftest import run_on
from tests.waiting import until


class Pair(NamedTuple):
    """Both servers, and the URL that names both."""

    primary: EmbeddedPostgres
    standby: EmbeddedStandby

    @property
    def url(self) -> str:
        """Of whichever is the primary."""
        server, _, database = self.primary.url.rpartition("/")
        return f"{server},127.0.0.1:{self.standby.port}/{database}"

    def freeze(self) -> None:
        """Stop the standby's receiver and all else of it: what is committed waits."""
        self.standby_process(signal.SIGSTOP)

    def standby_process(self, number: signal.Signals) -> None:
        """Send a signal to every process of the standby."""
        for pid in (self.standby.pid, *children(self.standby.pid)):
            os.kill(pid, number)


def children(pid: int) -> list[int]:
    """The processes that a postmaster started."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


async def paired(primary: EmbeddedPostgres) -> None:
    """Have the primary wait for its standby, and return once it follows."""
    await run_on(primary.url, "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (standby)'", "SELECT pg_reload_conf()")
    connection = await connect(primary.url, application_name="tests")
    try:
        await until(lambda: connection.fetchval("SELECT true FROM pg_stat_replication WHERE sync_state = 'sync'"))
    finally:
        await connection.close()


async def fail_over(pair: Pair) -> None:
    """Kill the primary with everything of it, then promote the standby."""
    for pid in (pair.primary.pid, *children(pair.primary.pid)):
        os.kill(pid, signal.SIGKILL)
    pair.primary.stop()
    pair.standby.start()
    connection = await connect(pair.standby.url, application_name="tests")
    try:
        assert await connection.fetchval("SELECT pg_promote()") is True
    finally:
        await connection.close()
