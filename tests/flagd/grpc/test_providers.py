"""Released flagd providers, unchanged, in both of their modes: a kill reaches them (P4, P5, P7)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flagd.grpc import Listener, evaluation_services, sync_services
from tests.flagd.grpc.providers import Provider, provider
from tests.flagd.grpc.serving import listening
from tests.flagd.world import PRODUCTION, World, definition, flag
from tests.node import node_modules
from tests.waiting import until

__all__ = ["node_modules"]

SERVICES = {"rpc": evaluation_services, "in-process": sync_services}
everyone = pytest.mark.parametrize(
    ("language", "mode"), [(language, mode) for language in ("python", "node") for mode in SERVICES]
)


@asynccontextmanager
async def serving(world: World, mode: str, port: int = 0) -> AsyncIterator[tuple[Listener, str]]:
    async with listening(world, SERVICES[mode], port=port) as (listener, at):
        yield listener, str(at)


async def kill(world: World, key: str, **scope: str) -> None:
    await world.replicas.refresh(PRODUCTION, await world.kill(key, scope=scope))


@everyone
async def test_a_kill_reaches_it_through_its_stream_and_a_lift_too(
    world: World, node_modules: Path, language: str, mode: str
) -> None:  # P4, P7
    static, ruled = definition(targeting={}), definition()
    await world.put(flag("static", definition=static), flag("ruled", definition=ruled))
    async with serving(world, mode) as (_, port), provider(language, node_modules, mode, port) as client:
        for _ in range(2):  # the second one may be kept by the client
            assert await client.ask("static") == (True, "on")
        assert await client.ask("ruled", plan="free") == (False, "off")
        assert await client.ask("ruled", plan="paid") == (True, "on")
        for key in ("static", "ruled"):
            await kill(world, key)
            await client.changed(key)
            assert await client.ask(key, plan="paid") == (False, "off")
        await world.replicas.refresh(PRODUCTION, await world.lift("static"))
        await client.changed("static")
        assert await client.ask("static") == (True, "on")


@everyone
async def test_a_narrowed_kill_takes_those_in_its_scope_and_those_who_cannot_tell(
    world: World, node_modules: Path, language: str, mode: str
) -> None:  # P4, P7
    await world.put(flag("f", definition=definition(targeting={})))
    async with serving(world, mode) as (_, port), provider(language, node_modules, mode, port) as client:
        assert await client.ask("f", region="eu") == (True, "on")
        await kill(world, "f", region="eu")
        await client.changed("f")
        for _ in range(2):
            assert await client.ask("f", region="us") == (True, "on")
            assert await client.ask("f", region="eu") == (False, "off")
            assert await client.ask("f") == (False, "off")


@everyone
async def test_a_kill_while_it_was_away_reaches_it_when_it_is_back(
    world: World, node_modules: Path, language: str, mode: str
) -> None:  # P4, P5
    await world.put(flag("f", definition=definition(targeting={})))
    async with serving(world, mode) as (listener, port):
        async with provider(language, node_modules, mode, port, f"flagSetId={PRODUCTION}") as client:
            assert await client.ask("f") == (True, "on")
            await listener.stop()
            await kill(world, "f")
            async with serving(world, mode, int(port)):
                await until(lambda: is_off(client))


async def is_off(client: Provider) -> bool:
    """Whether it has the kill. Until it is back it has what it kept, or its default."""
    return await client.ask("f") == (False, "off")
