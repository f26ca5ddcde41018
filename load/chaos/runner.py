"""The caller whose own process runs sagas, and may die of it: `client.run`, a few at a time, until it is stopped."""

from __future__ import annotations

import asyncio
import itertools
import random
import sys

import rescind

from load.chaos.shop import SAGAS

AT_A_TIME = 3
LEASE_SECONDS = 2.0
REST_SECONDS = 0.2


async def run_one(client: rescind.AsyncClient, name: str, chance: random.Random) -> None:
    """One saga; how it ends is for the history to say."""
    saga = SAGAS[chance.choice(sorted(SAGAS))]
    values = {"order_id": name, "amount_cents": chance.randrange(100, 10_000)}
    try:
        await client.run(saga, id=name, input=values, subject=None, lease_seconds=LEASE_SECONDS)
    except (rescind.SagaError, rescind.Unreachable, rescind.ApiError) as error:
        sys.stderr.write(f"{name}: {type(error).__name__}: {error}\n")


async def main(prefix: str, seed: str) -> None:
    """Run sagas for ever; one that waits for a person keeps its place for a while only."""
    numbers, chance = itertools.count(), random.Random(f"runner {seed}")

    async def one_after_another(client: rescind.AsyncClient) -> None:
        while True:
            try:
                async with asyncio.timeout(10):
                    await run_one(client, f"{prefix}-{next(numbers)}", chance)
            except TimeoutError:
                continue
            await asyncio.sleep(chance.uniform(0, REST_SECONDS))

    async with rescind.AsyncClient(service="caller", sagas=list(SAGAS.values())) as client:
        await asyncio.gather(*(one_after_another(client) for _ in range(AT_A_TIME)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
