"""Mixed requests: how many saw a revision and then evaluated at an older one, by what carries the revision (P3).

    ./run python load/mixed.py [--seed 1] [--flips 4]

Three services with eight instances each, one of them cut off, in virtual time: the client's own core, middleware and hooks
over a simulated network, the same figures every time. `load/three_services.py` asks the same of real processes.
"""

from __future__ import annotations

import argparse
import logging
import sys

import msgspec
from rich.console import Console
from rich.table import Table

from load.services.simulation import Carries, Plan, Result, simulate
from load.services.traces import CHAIN, IN_TURN
from load.system import percentile

EARLIER = {Carries.NOTHING: 1510, Carries.REQUESTS: 728, Carries.REPLIES: 14}
"""Mixed requests per flip in the simulation that P3 was designed by; how many requests that was of is not known."""
PLACES = {
    "behind others, fetches answered": Plan(),
    "at the entry, fetches answered": Plan(cut="a", routes=(CHAIN, IN_TURN)),
    "behind others, fetches cut too": Plan(cut_fetches=True),
}


def cells(result: Result, first: Result, flips: int) -> list[str]:
    """Of one run: per flip, and against the run in which nothing carried the revision."""
    share = f"{100 * result.mixed / first.mixed:.1f} %" if first.mixed else ""
    late = result.late_ms
    added = f"{percentile(late, 0.5):.1f}, {percentile(late, 0.99):.1f}" if late else ""
    figures = (f"{count / flips:.1f}" for count in (result.requests, result.mixed, result.turned))
    return [*figures, share, f"{result.stale / flips:.1f}", added]


def main() -> int:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--flips", type=int, default=4)
    arguments = parser.parse_args()
    logging.getLogger("rescind").setLevel(logging.ERROR)
    title = "per flip; added to a hop that was behind: p50, p99"
    columns = ("requests", "mixed", "new, then old", "", "STALE", "added ms")
    table = Table("the one cut off", "the revision is carried by", *columns, title=title)
    for place, plan in PLACES.items():
        plan = msgspec.structs.replace(plan, seed=arguments.seed, flips=arguments.flips)
        first: Result | None = None
        for carries in Carries:
            result = simulate(plan, carries)
            first = first or result
            table.add_row(place if result is first else "", carries.value, *cells(result, first, plan.flips))
    whole = EARLIER[Carries.NOTHING]
    for carries, count in EARLIER.items():
        table.add_row(
            "an earlier simulation" if count == whole else "",
            carries.value,
            "?",
            str(count),
            "",
            f"{100 * count / whole:.1f} %",
        )
    Console(width=150).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
