"""A coordinator in a process of its own, for tests that stop it: `python process.py DATABASE_URL`."""

from __future__ import annotations

import asyncio
import logging
import sys

from runtime.clock import Clock, Entropy
from runtime.postgres import Postgres
from sagas.coordinator import Coordinator, Tuning
from sagas.executors import Executors

SECRETS = {"PAY": "sk_test_1", "SIGN": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}


async def main(url: str) -> None:
    logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="%(message)s")
    clock, entropy = Clock(), Entropy()
    pg = await Postgres.open(url, application_name="stoppable")
    tuning = Tuning(lease_seconds=0.6, renew_seconds=0.1, poll_seconds=0.05, start_window_seconds=0.1, margin_seconds=0.1)
    coordinator = Coordinator(pg, clock, entropy, "stoppable", Executors(clock, SECRETS), tuning=tuning)
    await coordinator.start()
    while not coordinator.leases.held():
        await asyncio.sleep(0.01)
    print("holding", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
