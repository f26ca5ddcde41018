"""A worker of DBOS: three no-op steps with compensations, from its queue: `python dbos_worker.py DATABASE_URL`."""

from __future__ import annotations

import sys
import threading

from dbos import DBOS

NAME = "load"
POLL_SECONDS = 0.01
STEPS = ("reserve", "capture", "confirm")


@DBOS.step()
async def act(step: str, order: str, fails: bool) -> str:
    if fails:
        raise ValueError("refused")
    return f"{step}-{order}"


@DBOS.step()
async def undo(step: str, order: str) -> None: ...


@DBOS.workflow()
async def saga(order: str, amount_cents: int, fails: bool) -> str:
    """The steps in order; where the last one fails, those before it are undone, the latest first."""
    done: list[str] = []
    try:
        for step in STEPS:
            await act(step, order, fails and step == STEPS[-1])
            done.append(step)
    except ValueError:
        for step in reversed(done):
            await undo(step, order)
        return "undone"
    return "done"


def main(database_url: str) -> None:
    """Serve the queue until killed."""
    DBOS(config={"name": NAME, "system_database_url": database_url, "run_admin_server": False, "log_level": "ERROR"})
    DBOS.launch()
    DBOS.register_queue(NAME, polling_interval_sec=POLL_SECONDS)
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
