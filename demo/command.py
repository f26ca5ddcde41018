"""`rescind demo`: the main job in one go, on this machine, with real input.

Ends by itself; exit code 0 only if every promise held.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

import click

from demo.acts import Demo, Options
from demo.story import Story

BROKEN = 1
INTERRUPTED = 130
OUT_OF_TIME = "the demo took longer than its deadline"


@click.command()
@click.option("--purchases", "count", type=click.IntRange(min=40), metavar="N", help="How many to replay (default: all 452).")
@click.option("--seed", type=int, default=1, show_default=True, help="Of what is left to chance, as who clicks twice.")
@click.option("--sabotage", is_flag=True, help="Drop one refund and double another: the judge must find both (exit code 3).")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Keep data and logs in DIR.")
@click.option(
    "--deadline", "deadline_seconds", type=click.FloatRange(min=10), default=240.0, show_default=True, metavar="SECONDS",
    help="Give up then.",
)  # fmt: skip
def demo(count: int | None, seed: int, sabotage: bool, keep: Path | None, deadline_seconds: float) -> int:
    """Real purchases through a bad release, killed half-way, undone, and judged from the outside.

    Starts Rescind on embedded PostgreSQL and Valkey, three services, a payment server, a mail server and a partner, all on
    loopback; needs no set-up, asks nothing and leaves nothing behind.

    Exit codes: 0 every promise held; 1 one did not; 3 with --sabotage, when exactly the dropped and the doubled refund were
    found (with --sabotage everything else, also finding nothing, is 1).
    """
    options = Options(count=count, seed=seed, sabotage=sabotage, keep=keep)
    return run(options, deadline_seconds)


def run(options: Options, deadline_seconds: float) -> int:
    """Run the demo in a directory of its own; the exit code."""
    directory = options.keep or Path(tempfile.mkdtemp(prefix="rescind-demo-"))
    directory.mkdir(parents=True, exist_ok=True)
    try:
        return asyncio.run(_bounded(Demo(options, directory.resolve(), Story()), deadline_seconds))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    finally:
        if options.keep is None:
            shutil.rmtree(directory, ignore_errors=True)


async def _bounded(demo: Demo, deadline_seconds: float) -> int:
    """Run until the end, the deadline, or a signal; in every case what was started is stopped."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        with suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        async with asyncio.timeout(deadline_seconds):
            return await demo.run()
    except TimeoutError:
        demo.story.check(False, f"the demo ends within {deadline_seconds:g} s", why_not=OUT_OF_TIME)
        return BROKEN
