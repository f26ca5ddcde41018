"""What counting costs: an outcome in the service, and a fleet's summaries in the server.

    ./run python load/counts.py [--instances 1000] [--series 20] [--repeats 5]

`client.track` is counted as microseconds of the calling thread's CPU, after an evaluation of its own. Then a fleet sends one
window each at once, over HTTP to a `rescind dev` of its own: of one service with `series` flags, two variants each, with
outcomes and their durations. Prints how long it takes until the last is answered, and rows per second as they were sent. What
counting costs an evaluation is in `load/evaluation.py`, with and without in one run.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import timeit
import uuid
from pathlib import Path
from typing import Any

from rescind.transport import AsyncApi
from rescind.wire import CountsAnswer, CountsRequest, CountsWindow, EvaluationCount, OutcomeCount

from load.peers import ours
from load.system import ENVIRONMENT, FLAG, Site, percentile, system

CALLS = 20_000
AT_ONCE = 64
SEND_SECONDS = 60.0
VARIANTS = ("on", "off")
DURATIONS = [(bucket, 10) for bucket in range(40, 60)]


def show_track(site: Site, folder: Path, repeats: int) -> None:
    """The cost of an outcome: of a variant that is named, and of the one that was served."""
    client = ours.client_of(site, folder)
    client.boolean(FLAG, False)
    for said, statement in (
        ("the variant that was served", "client.track(key, ok=True, duration_ms=12.3)"),
        ("a variant that is named", "client.track(key, ok=True, duration_ms=12.3, variant='on')"),
    ):
        timer = timeit.Timer(statement, timer=time.thread_time, globals={"client": client, "key": FLAG})
        taken = statistics.median(timer.repeat(repeats, CALLS)) / CALLS * 1e6
        print(f"client.track, {said}: {taken:.2f} µs of CPU")
    client.close()


def request_of(number: int, series: int) -> CountsRequest:
    """One window of one instance."""
    places = [(f"flag-{flag}", variant) for flag in range(series) for variant in VARIANTS]
    evaluations = [EvaluationCount(flag=flag, variant=variant, reason="SPLIT", count=100) for flag, variant in places]
    outcomes = [OutcomeCount(flag=flag, variant=variant, ok=199, failed=1, durations=DURATIONS) for flag, variant in places]
    window = CountsWindow(sequence=1, ended_ms_ago=0, evaluations=evaluations, outcomes=outcomes)
    return CountsRequest(run=str(uuid.uuid4()), service="load", instance=f"{number}", windows=[window])


async def fleet(site: Site, instances: int, series: int) -> tuple[float, list[float]]:
    """Milliseconds until all are answered, and of each request."""
    api = AsyncApi(site.url, site.token, ENVIRONMENT)
    bodies = [request_of(number, series) for number in range(instances)]
    room, taken = asyncio.Semaphore(AT_ONCE), list[float]()

    async def send(body: CountsRequest) -> None:
        async with room:
            began = time.perf_counter()
            await api.repeatable(api.within("/counts"), body, CountsAnswer, timeout_seconds=SEND_SECONDS)
            taken.append((time.perf_counter() - began) * 1e3)

    began = time.perf_counter()
    await asyncio.gather(*(send(body) for body in bodies))
    whole = (time.perf_counter() - began) * 1e3
    await api.close()
    return whole, taken


def show_fleet(site: Site, instances: int, series: int, repeats: int) -> None:
    """A fleet's summaries, and that they add up."""
    wholes, requests, cpu = [], list[float](), []
    for number in range(series):
        site.put(f"flag-{number}")
    for _ in range(repeats):
        spent = site.server_seconds(), site.database_seconds()
        whole, taken = asyncio.run(fleet(site, instances, series))
        cpu.append((site.server_seconds() - spent[0], site.database_seconds() - spent[1]))
        wholes.append(whole)
        requests += taken
    rows = instances * series * len(VARIANTS) * 2
    middle = statistics.median(wholes)
    print(f"{instances} instances at once, {rows // instances} rows each: {middle:.0f} ms until the last, ", end="")
    print(f"{rows / middle * 1e3:,.0f} rows/s (medians of {repeats}); ", end="")
    print(f"one request p50 {percentile(requests, 0.5):.0f} ms, p99 {percentile(requests, 0.99):.0f} ms, {AT_ONCE} at a time")
    server, database = (statistics.median(one) / instances * 1e6 for one in zip(*cpu, strict=True))
    print(f"CPU of one instance's window: server {server:.0f} µs, PostgreSQL and Valkey {database:.0f} µs")
    answer: dict[str, Any] = site.api.request("GET", site.api.within("/flags/flag-0/counts"))
    counted = sum(one["count"] for one in answer["totals"])
    print(f"flag-0 was counted {counted:,} times, sent {repeats * instances * len(VARIANTS) * 100:,}")


def main() -> int:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--series", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with system() as site, tempfile.TemporaryDirectory() as folder:
        site.put()
        show_track(site, Path(folder), arguments.repeats)
        show_fleet(site, arguments.instances, arguments.series, arguments.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
