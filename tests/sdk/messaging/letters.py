"""arq as people use it: one who enqueues and is current, a worker that hears of no change by itself. Prints what the jobs saw.

Runs in an environment of its own, with the SDK's wheel: arq needs an older redis-py than the server does.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import arq
import msgspec
import rescind
import rescind.arq
from arq.connections import RedisSettings

FLAG = "checkout.new-flow"
SETTINGS = RedisSettings.from_dsn(sys.argv[1])
TRUST = sys.argv[2] == "yes"
QUEUE = sys.argv[3]
CEILING_SECONDS = 60.0

ahead = rescind.AsyncClient(service="shop")
behind = rescind.AsyncClient(service="letters")
seen: list[dict[str, Any]] = []


async def look(ctx: dict[Any, Any], name: str, *, again: bool = False) -> str:
    """What a job sees; it may send another."""
    if again:
        await ctx["redis"].enqueue_job("look", "second", _queue_name=QUEUE)
    details = behind.boolean_details(FLAG, False)
    seen.append({"name": name, "value": details.value, "reason": details.reason})
    return name


async def greet(ctx: dict[Any, Any]) -> None:
    """A hook of the team's own."""
    seen.append({"name": "started", "value": behind.boolean(FLAG, False), "reason": "hook"})


@rescind.arq.worker(behind, trust=TRUST, budget_seconds=5)
class WorkerSettings:
    """As arq takes them."""

    functions = [look]
    on_job_start = greet
    redis_settings = SETTINGS
    queue_name = QUEUE
    burst = True
    handle_signals = False
    poll_delay = 0.01


async def main() -> None:
    """Ready, a line of input when the kill is done, then the jobs."""
    async with ahead, behind:
        (following,) = (task for task in behind.core.tasks if task.get_name() == "Follower.run")
        following.cancel()
        pool = rescind.arq.instrument(await arq.create_pool(SETTINGS), ahead)
        print("ready", flush=True)
        revision = (await asyncio.to_thread(sys.stdin.readline)).strip()
        async with asyncio.timeout(CEILING_SECONDS):
            while str(ahead.core.current.revision) != revision:
                await asyncio.sleep(0.01)
        job = await pool.enqueue_job("look", "first", again=True, _queue_name=QUEUE)
        worker = arq.worker.create_worker(WorkerSettings)
        await worker.main()
        result = await job.result(timeout=CEILING_SECONDS)
        await worker.close()
        await pool.aclose()
        print(msgspec.json.encode({"seen": seen, "result": result}).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
