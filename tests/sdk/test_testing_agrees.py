"""What `rescind.testing` answers is what a real server answers: one story, told to both (P8, P9, P10)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import rescind
from rescind.testing import FlagsFixture

from tests.sdk.conftest import FLAG, Site
from tests.waiting import until

STORY = [
    "admitted", "replayed", "conflict",
    "NotDone", "admitted", "replayed",
    "OSError", "in_progress",
    "unknown_flag",
    "killed", "killed", "off admitted", "off conflict",
    "replayed", "admitted", "in_progress",
]  # fmt: skip
OUTCOMES = {
    rescind.EffectConflict: "conflict",
    rescind.EffectInProgress: "in_progress",
    rescind.EffectKilled: "killed",
    rescind.EffectRefused: "unknown_flag",
}


class Told:
    """A client, and what people do to its flag: nothing is undone, so that no coordinator takes part."""

    def __init__(self, client: rescind.AsyncClient, kill: Callable[[], Any], lift: Callable[[], Any]) -> None:
        self.client = client
        self._kill = kill
        self._lift = lift

    async def kill(self) -> None:
        await asyncio.to_thread(self._kill)
        await until(lambda: self.client.boolean(FLAG, True) is False)

    async def lift(self) -> None:
        await asyncio.to_thread(self._lift)
        await until(lambda: self.client.boolean(FLAG, False) is True)

    async def act(self, key: str, *, amount: int = 1, fate: Exception | None = None, **how: Any) -> str:
        asked = {"flag": FLAG, "key": key, "payload": {"amount_cents": amount}, "variant": "on", **how}
        try:
            async with self.client.effect("payment.capture", **asked) as effect:
                if fate is not None:
                    raise fate
            return "replayed" if effect.replayed else "admitted"
        except (rescind.NotDone, OSError) as error:
            return type(error).__name__
        except rescind.EffectError as error:
            return OUTCOMES[type(error)]


@pytest.fixture
async def real(site: Site) -> AsyncIterator[Told]:
    def kill() -> None:
        site.kill(compensate="none")

    async with rescind.AsyncClient(**site.options) as client:
        yield Told(client, kill, site.lift)


@pytest.fixture
async def fixture() -> Told:
    flags = FlagsFixture({FLAG: True})
    return Told(flags.async_client, lambda: flags.kill(FLAG, compensate=False), lambda: flags.lift(FLAG))


async def told(to: Told) -> list[str]:
    """The story, as it went."""
    went = [await to.act("a"), await to.act("a"), await to.act("a", amount=2)]
    went += [await to.act("b", fate=rescind.NotDone("away")), await to.act("b"), await to.act("b")]
    went += [await to.act("c", fate=OSError("lost")), await to.act("c")]
    went += [await to.act("d", flag="no.such-flag")]
    await to.kill()
    went += [await to.act("a"), await to.act("e")]
    went += [f"off {await to.act('f', variant='off')}", f"off {await to.act('f', variant='off', amount=2)}"]
    await to.lift()
    return [*went, await to.act("a"), await to.act("e"), await to.act("c")]


@pytest.mark.parametrize("name", ["real", "fixture"])
async def test_the_fixture_and_a_server_tell_the_same_story(name: str, real: Told, fixture: Told) -> None:
    assert await told({"real": real, "fixture": fixture}[name]) == STORY
