"""How long a kill takes while others edit what many flags share: request to answer, which comes when the fence has committed.

    ./run python load/editing.py [FLAGS] [KILLS]

One process edits without pause, through the same server that is asked to kill: nothing, then a segment that every flag refers
to, then every flag by an import. Kills and lifts of one flag by turns, at instants of chance; lifts are not in the figure.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from rescind.errors import ApiError
from rescind.transport import Api
from system import ENVIRONMENT, FLAG, Site, percentile, system

SEGMENT = "staff"
TIMEOUT_SECONDS = 60.0
PAUSE_SECONDS = 2.0
"""At most, before each kill and each lift."""

Edit = Callable[[Api, int, int], Any]


def document(flags: int, turn: int) -> dict[str, Any]:
    """A flagd document of flags that refer to the segment; another one at every turn."""
    targeting = {"if": [{"$ref": SEGMENT}, "on", {"==": [{"var": "plan"}, f"plan-{turn}"]}, "on", "off"]}
    definition = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off", "targeting": targeting}
    return {"flags": {f"flag-{number}": definition for number in range(flags)}, "$evaluators": {SEGMENT: rule(0)}}


def rule(turn: int) -> dict[str, Any]:
    """The segment's rule; another one at every turn."""
    return {"in": [{"var": "email"}, [f"{turn}@example.com", "a@example.com", "b@example.com"]]}


def edit_segment(api: Api, turn: int, flags: int) -> None:
    body = {"segment": {"rule": rule(turn)}, "reason": "load"}
    api.request("PUT", api.within(f"/segments/{SEGMENT}"), json=body, timeout_seconds=TIMEOUT_SECONDS)


def edit_flags(api: Api, turn: int, flags: int) -> None:
    api.request("POST", api.within("/import"), json=document(flags, turn), timeout_seconds=TIMEOUT_SECONDS)


def edit(url: str, token: str, how: Edit, flags: int, count: Synchronized[int]) -> None:
    """Edit until the process is ended."""
    api = Api(url, token, ENVIRONMENT)
    for turn in range(1, sys.maxsize):
        with suppress(ApiError):  # kills came in between, again and again
            how(api, turn, flags)
            count.value += 1


@contextmanager
def editing(site: Site, how: Edit | None, flags: int) -> Iterator[Synchronized[int]]:
    """Another process edits meanwhile; how many times it has, once it has begun."""
    count: Synchronized[int] = multiprocessing.Value("i", 0)
    if how is None:
        yield count
        return
    process = multiprocessing.Process(target=edit, args=(site.url, site.token, how, flags, count), daemon=True)
    process.start()
    while not count.value:
        time.sleep(0.05)
    count.value = 0
    try:
        yield count
    finally:
        process.terminate()
        process.join()


def kill_seconds(site: Site, chance: random.Random) -> float:
    """Kill the flag and lift it again, each after a while; what the kill took."""
    path = site.api.within(f"/flags/{FLAG}")
    time.sleep(chance.random() * PAUSE_SECONDS)
    begun = time.perf_counter()
    killed = site.api.request(
        "POST", f"{path}/kill", json={"reason": "load", "compensate": "none"}, timeout_seconds=TIMEOUT_SECONDS
    )
    took = time.perf_counter() - begun
    time.sleep(chance.random() * PAUSE_SECONDS)
    lift = {"reason": "load", "kill_count": killed["kill_count"], "force": True}
    site.api.request("POST", f"{path}/lift", json=lift, timeout_seconds=TIMEOUT_SECONDS)
    return took


def main(flags: int, kills: int) -> None:
    ways: dict[str, Edit | None] = {
        "nothing is edited": None,
        f"a segment that {flags:,} flags refer to": edit_segment,
        f"{flags:,} flags by an import": edit_flags,
    }
    print(f"{f'kill to fenced, milliseconds, {kills} kills':<48}{'p50':>8}{'p99':>8}{'most':>8}{'edits/s':>9}")
    chance = random.Random(4711)
    with system() as site:
        edit_flags(site.api, 0, flags)
        for name, how in ways.items():
            with editing(site, how, flags) as count:
                begun = time.perf_counter()
                took = [kill_seconds(site, chance) * 1e3 for _ in range(kills)]
                rate = count.value / (time.perf_counter() - begun)
            figures = (percentile(took, 0.5), percentile(took, 0.99), max(took))
            print(f"  {name:<46}" + "".join(f"{one:>8.1f}" for one in figures) + f"{rate:>9.2f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000, int(sys.argv[2]) if len(sys.argv) > 2 else 100)
