"""The loop: 3 servers, 4 workers and a caller under faults, a provider that behaves badly, and checks over what happened.

    ./run python -m load.chaos [--seed N] [--minutes 1] [--save FILE]

Prints the seed, which says which faults come when; a table of what was met, and the verdict. Ends with 1 where a promise was
broken: the history is then saved.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from rich.table import Table

from load.chaos.story import Verdict, run

SHOWN_MAX = 20


def told(verdict: Verdict) -> Table:
    """What was met, and how it ended."""
    table = Table("what", "how often", title=f"seed {verdict.seed}")
    for title, counts in (("", verdict.faults), ("provider: ", verdict.fates), ("ended: ", verdict.ends)):
        for name, count in sorted(counts.items()):
            table.add_row(f"{title}{name}", str(count))
    history = verdict.history
    table.add_row("acknowledged starts, reports", f"{len(history.started)}, {len(history.reported)}")
    table.add_row("lines in the provider's ledger", str(len(history.entries)))
    table.add_row("seconds until nothing moved", f"{verdict.healed_seconds:.1f}")
    return table


def judged(verdict: Verdict) -> Table:
    """The promises."""
    table = Table("promise", "verdict", title="checked over the history")
    for name, broken in verdict.broken.items():
        shown = "\n".join(broken[:SHOWN_MAX])
        table.add_row(name, f"BROKEN {len(broken)} times\n{shown}" if broken else "held")
    return table


def main() -> int:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--minutes", type=float, default=1.0, help="for how long faults happen")
    parser.add_argument("--save", type=Path, help="where the history goes; left out, only a broken one is saved")
    parser.add_argument("--keep", type=Path, help="a folder for the database and the logs, which then stay")
    arguments = parser.parse_args()
    console = Console()
    console.print(f"seed {arguments.seed}")
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("starting", total=1.0)
        verdict = asyncio.run(
            run(
                arguments.seed,
                arguments.minutes * 60,
                lambda what, done: bar.update(task, description=what, completed=done),
                arguments.keep,
            )
        )
        bar.update(task, description="done", completed=1.0)
    console.print(told(verdict))
    console.print(judged(verdict))
    path = arguments.save or (None if verdict.holds else Path(f"chaos-{verdict.seed}.json"))
    if path is not None:
        path.write_bytes(msgspec.json.encode(verdict.history))
        console.print(f"the history is in {path}")
    console.print("every promise held" if verdict.holds else "a promise was broken")
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main())
