"""PostgreSQL's bells (LISTEN), on a connection of their own. A bell shortens a wait: polling is enough without it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from runtime.clock import Clock
from runtime.postgres import Connection, Postgres

AGAIN_SECONDS = 1.0

Bells = Mapping[str, Callable[[str], None]]
"""By channel, what is called with the payload of each notification."""


async def listen(pg: Postgres, bells: Bells, begun: Callable[[], None] | None = None) -> None:
    """Hear the bells until the connection is lost. `begun` is called once they are heard. Raises `Unavailable`."""
    connection = await pg.dedicated()
    lost = asyncio.Event()
    try:
        connection.add_termination_listener(lambda _: lost.set())
        for channel, bell in bells.items():
            await connection.add_listener(channel, partial(_rung, bell))
        if begun is not None:
            begun()
        await lost.wait()
    finally:
        connection.terminate()


async def keep_listening(pg: Postgres, clock: Clock, bells: Bells, failed: Callable[[Exception], None]) -> None:
    """The same, again and again until cancelled; `failed` is told each time it did not come about."""
    while True:
        try:
            await listen(pg, bells)
        except Exception as error:
            failed(error)
        await clock.sleep(AGAIN_SECONDS)


def _rung(bell: Callable[[str], None], connection: Connection, pid: int, channel: str, payload: object) -> None:
    bell(str(payload))
