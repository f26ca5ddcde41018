"""`client.run`: this process starts an instance and is its only worker (P14, P16, P18).

Each step is admitted before its function runs, and recorded after it; one that fails turns the instance back, and what was done
is undone, latest first. When the process dies, or the caller is cancelled, the coordinator takes over once the lease is over:
forward where the steps that are left may be tried again, backward otherwise.
"""

from __future__ import annotations

import asyncio
import logging

from rescind.clock import full_jitter_seconds
from rescind.core import Core
from rescind.errors import ApiError, Unreachable
from rescind.handlers import handlers_of
from rescind.handles import Order, Results, accept, result_of
from rescind.hands import Hands

logger = logging.getLogger("rescind.worker")

CONCURRENCY = 16
"""Steps of one group that run beside each other."""
CLAIM_SECONDS = 10.0
LOOK_SECONDS = 0.1
"""Whoever has nothing in hand has most likely ended: only after this it asks for more to do."""
START_ATTEMPTS_MAX = 5


async def run(core: Core, order: Order, lease_seconds: float) -> Results:
    """What each step gave. Raises `SagaUndone` and the refusals, `Unreachable` where it could not be started, `ApiError`."""
    await core.registration.ensure(order.saga)
    (handlers,) = handlers_of([order.saga])
    worker = f"{core.settings.instance}/{core.clock.token()}"
    hands = Hands(core, handlers, CONCURRENCY, lease_seconds=lease_seconds, worker=worker, instance=order.id)
    try:
        await start(core, order, hands, lease_seconds)
        return await drive(core, order, hands)
    finally:
        core.keep(hands.stop(0.0))


async def start(core: Core, order: Order, hands: Hands, lease_seconds: float) -> None:
    """Start it; a repeat is the same start. Raises the refusals, `Unreachable` and `ApiError`."""
    request = order.begun(core, run_by=hands.worker, lease_seconds=lease_seconds)
    for attempt in range(1, START_ATTEMPTS_MAX + 1):
        try:
            return accept(order.saga.name, order.id, await hands.start(request))
        except (Unreachable, ApiError) as error:
            if attempt == START_ATTEMPTS_MAX or (isinstance(error, ApiError) and not error.passing):
                raise
            await asyncio.sleep(full_jitter_seconds(core.clock, attempt))
    raise AssertionError("the last attempt returns or raises")


async def drive(core: Core, order: Order, hands: Hands) -> Results:
    """Carry out what comes until the instance has ended."""
    await hands.idle()
    ending = asyncio.ensure_future(result_of(core, order.saga.name, order.id, None))
    asking: asyncio.Future[None] | None = None
    try:
        await asyncio.wait([ending], timeout=LOOK_SECONDS)
        while not ending.done():
            asking = asyncio.ensure_future(ask(core, hands))
            await asyncio.wait([ending, asking], return_when=asyncio.FIRST_COMPLETED)
        return await ending
    finally:
        for waiting in (ending, asking):
            if waiting is not None:
                waiting.cancel()


async def ask(core: Core, hands: Hands) -> None:
    """Ask once for something to do and do it, with all that follows."""
    try:
        await hands.claim(CLAIM_SECONDS)
    except (Unreachable, ApiError) as error:
        logger.warning("cannot claim: %s", error)
        await asyncio.sleep(full_jitter_seconds(core.clock, 2))
    await hands.idle()
