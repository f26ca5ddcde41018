"""How long one evaluation takes in the process, ours beside others' in one run, and what a compiled flag weighs.

    ./run --group peers python load/evaluation.py [--repeats 15] [--users 500]

Three flags, written in each evaluator's own form: a plain boolean; a list of countries and a plan, then 25 %; 20 such rules, of
which the last matches. Each peer is asked by its public call, offline, with contexts made beforehand; what it gives is compared
first. Medians over rounds in which all take turns, in microseconds of the calling thread's CPU for one call, so that nobody
pays for what else the machine does: with one context again and again, and with a context of its own for each call. Ours runs as
in a service: the client follows a `rescind dev`, with the guard against any exception, the look for a request's pin, and the
note of what was evaluated for effects, and counts, whose cost is what is more than the same without them.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import tempfile
import time
import timeit
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from rescind.evaluation import Evaluator
from rescind.wire import SnapshotFlag
from rich.console import Console
from rich.table import Table

from load.loading import flag as usual_flag
from load.peers import openfeature, ours, theirs
from load.peers.flags import FLAGS, ONE, PLAIN, SHARE, TITLES, TWENTY, user
from load.system import system

MARKS = {PLAIN: 0.2, ONE: 0.5, TWENTY: 0.9}
RATIO = 2.5
WEIGHT_MAX = 10 * 1024
COMPILED = 10_000
TOLERANCE = 0.25
BARE = (ours.Uncounted.name, ours.UncountedPinned.name)
OURS = (ours.Native.name, ours.Pinned.name, *BARE, openfeature.Ours.name)
FLOOR = openfeature.NoOp.name
"""It evaluates nothing: what OpenFeature costs."""
Times = dict[tuple[str, str, str], list[float]]


class Peer(Protocol):
    """Whoever is measured."""

    name: str
    statement: str
    client: Any

    def context(self, user: dict[str, Any]) -> Any: ...

    def close(self) -> None: ...


@contextmanager
def peers() -> Iterator[list[Peer]]:
    """All that can be loaded; who cannot is named with the reason."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        site = stack.enter_context(system())
        ours.put_flags(site)
        clients = [ours.client_of(site, folder / name) for name in ("native", "pinned", "openfeature")]
        found: list[Peer] = [ours.Native(clients[0]), ours.Pinned(clients[1]), openfeature.Ours(clients[2])]
        bare = ours.uncounted()
        found.append(ours.Uncounted(ours.client_of(site, folder / "uncounted", bare)))
        found.append(ours.UncountedPinned(ours.client_of(site, folder / "uncounted pinned", bare)))
        for make in (*theirs.PEERS, openfeature.NoOp, openfeature.Flagd):
            try:
                found.append(make(folder))
            except Exception as error:  # whatever keeps a peer from being there is said, and the others go on
                print(f"{make.name} is not measured: {type(error).__name__}: {error} (`./run --group peers` brings them)")
        yield found
        openfeature.shutdown()
        for peer in found:
            peer.close()
        clients[2].close()


def compare(peer: Peer, contexts: list[Any]) -> None:
    """Whether it gives what everybody has to give. Raises `SystemExit`."""
    if peer.name == FLOOR:
        return
    for key, rules in FLAGS.items():
        on = sum(eval(peer.statement, {"client": peer.client, "key": key, "context": context}) for context in contexts)
        expected = len(contexts) * SHARE / 100 if rules else len(contexts)
        if abs(on - expected) > TOLERANCE * expected:
            raise SystemExit(f"{peer.name} serves {key} to {on} of {len(contexts)}: that is another flag")


def measure(found: list[Peer], repeats: int, users: int) -> Times:
    """Microseconds of one call by peer, flag and kind of contexts, a round at a time."""
    own = {peer.name: [peer.context(user(number)) for number in range(users)] for peer in found}
    for peer in found:
        compare(peer, own[peer.name])
    times: Times = {}
    for turn in range(repeats):
        # whoever comes after another kind of code finds the CPU's caches cold: another order in each round
        for peer in random.Random(turn).sample(found, len(found)):
            for key in FLAGS:
                for kind, contexts in (("one", own[peer.name][:1] * users), ("own", own[peer.name])):
                    names = {"client": peer.client, "key": key, "contexts": contexts}
                    loop = timeit.Timer(f"for context in contexts: {peer.statement}", timer=time.thread_time, globals=names)
                    times.setdefault((peer.name, key, kind), []).append(loop.timeit(1) / users * 1e6)
    return times


def show(found: list[Peer], times: Times) -> None:
    """The table, and ours against the marks and against the fastest peer."""
    middle = {place: statistics.median(values) for place, values in times.items()}
    console = Console(width=140)
    table = Table(
        "microseconds of one call", *(f"{TITLES[key]}" for key in FLAGS), title="one context / a context for each call"
    )
    for peer in sorted(found, key=lambda peer: middle[peer.name, TWENTY, "one"]):
        cells = (f"{middle[peer.name, key, 'one']:.2f} / {middle[peer.name, key, 'own']:.2f}" for key in FLAGS)
        table.add_row(peer.name, *cells)
    console.print(table)
    for kind, counted, bare in (("plain", OURS[0], BARE[0]), ("pinned", OURS[1], BARE[1])):
        for contexts in ("one", "own"):
            cost = [(middle[counted, key, contexts] - middle[bare, key, contexts]) * 1e3 for key in FLAGS]
            console.print(f"counting, {kind}, contexts {contexts}: {', '.join(f'{one:.0f}' for one in cost)} ns")
    others = [peer.name for peer in found if peer.name not in (*OURS, FLOOR)]
    for key in FLAGS:
        mine = middle[OURS[0], key, "one"]
        console.print(
            f"{TITLES[key]}: {mine:.2f} µs, mark {MARKS[key]}: {'reached' if mine <= MARKS[key] else 'short'}", end=""
        )
        for kind, said in (("one", "one context"), ("own", "a context for each call")):
            name = min(others, key=lambda name: middle[name, key, kind], default=None)
            if name is not None:
                ratio = middle[name, key, kind] / middle[OURS[0], key, kind]
                console.print(f"; {ratio:.1f} times faster than {name} with {said} (mark {RATIO})", end="")
        console.print()


def milliseconds(call: Callable[[], Any]) -> float:
    """The time of one call."""
    return timeit.timeit(call, number=1) * 1e3


def show_set() -> None:
    """Constructing, compiling and changing many usual flags, and the memory of each compiled one."""
    many = {made["key"]: SnapshotFlag(definition=made["definition"]) for made in map(usual_flag, range(COMPILED))}
    evaluator = Evaluator(many)
    one = next(iter(many))
    gc.collect()
    tracemalloc.start()
    evaluator.compile()
    weight = tracemalloc.get_traced_memory()[0] / COMPILED
    tracemalloc.stop()
    took = milliseconds(Evaluator(many).compile)
    changed = milliseconds(lambda: evaluator.updated({one: many[one]}))
    print(f"{COMPILED:,} flags: compiling {took:.0f} ms ({took / COMPILED * 1e3:.0f} µs each, at first use), ", end="")
    print(f"changing one {changed:.2f} ms, a compiled flag {weight / 1024:.1f} KB (mark {WEIGHT_MAX // 1024} KB)")


def main() -> int:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--users", type=int, default=500)
    arguments = parser.parse_args()
    with peers() as found:
        show(found, measure(found, arguments.repeats, arguments.users))
    show_set()
    return 0


if __name__ == "__main__":
    sys.exit(main())
