"""Callers that are cancelled while a request of theirs is under way: nothing is held for them, and nothing is lost."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
import rescind

from tests.sdk.conftest import Site, capture
from tests.waiting import until

STEPS = 8
"""Turns of the loop from the start of a caller until its request is on the wire, and some more."""


async def turns(count: int) -> None:
    """Let the loop turn so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_permission_that_nobody_waits_for_any_more_is_given_back(site: Site) -> None:
    # P8, P9: at whatever point the caller was cancelled
    async with rescind.AsyncClient(**site.options) as client:
        async with capture(client, "known"):
            pass

        async def act(key: str) -> None:
            async with capture(client, key):
                pytest.fail("it was cancelled before its body")

        for count in range(STEPS):
            acting = asyncio.create_task(act(f"after {count} turns"))
            await turns(count)
            acting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await acting

        attempts: list[int] = []

        async def is_free(key: str) -> bool:
            try:
                async with capture(client, key) as effect:
                    assert not effect.replayed
                    attempts.append(effect.attempt)
            except rescind.EffectInProgress:
                return False  # the cancelled ask, or its return, is still on the wire; its lease is far longer than this wait
            return True

        for count in range(STEPS):
            await until(partial(is_free, f"after {count} turns"))
        assert max(attempts) > 1, "some were admitted, given back, and admitted again"
    assert await asyncio.to_thread(site.statuses) == ["succeeded"] * (STEPS + 1)


async def test_an_outcome_arrives_although_its_caller_was_cancelled_while_it_was_under_way(site: Site) -> None:
    # P10, P11
    async with rescind.AsyncClient(**site.options) as client:

        async def act(key: str, done: asyncio.Event) -> None:
            async with capture(client, key) as effect:
                effect.result = key
                done.set()

        for count in range(STEPS):
            done = asyncio.Event()
            acting = asyncio.create_task(act(f"{count}", done))
            await done.wait()
            await turns(count)
            acting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await acting
    assert await asyncio.to_thread(site.statuses) == ["succeeded"] * STEPS
