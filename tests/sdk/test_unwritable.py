"""Texts that no request can carry (half a surrogate, as `json.loads` gives them out): the trouble of whoever brought them."""

from __future__ import annotations

import asyncio

import pytest
import rescind
from rescind.settings import settings_from

from tests.sdk.conftest import FLAG, Site, capture
from tests.waiting import CEILING_SECONDS

HALF = "half a surrogate \ud800"


async def test_an_effect_that_cannot_be_written_harms_none_of_its_batch(site: Site) -> None:
    # P9
    async def one(client: rescind.AsyncClient, key: str) -> bool:
        async with capture(client, key) as effect:
            return not effect.replayed

    async with rescind.AsyncClient(**site.options) as client, asyncio.timeout(CEILING_SECONDS):
        keys = ["1", "2", HALF, "3"]
        ends = await asyncio.gather(*(one(client, key) for key in keys), return_exceptions=True)
    assert [end is True for end in ends] == [True, True, False, True]
    assert isinstance(ends[2], UnicodeEncodeError)
    assert await asyncio.to_thread(site.statuses) == ["succeeded"] * 3


async def test_an_outcome_is_told_whatever_its_exception_says(site: Site) -> None:
    # P10
    async with rescind.AsyncClient(**site.options) as client:
        with pytest.raises(LookupError):
            async with capture(client, "1"):
                raise LookupError(HALF)
    assert await asyncio.to_thread(site.statuses) == ["in_doubt"]
    assert client.status().held_outcome_count == 0


@pytest.mark.parametrize("name", ["token", "environment", "service", "service_version", "instance"])
def test_a_setting_that_cannot_be_written_is_said_at_once(name: str) -> None:
    with pytest.raises(rescind.ConfigurationError, match=name):
        settings_from(**{"url": "http://127.0.0.1:9", "token": "t", name: HALF}, variables={})  # type: ignore[arg-type]


def test_an_effect_of_a_flag_that_cannot_be_written_is_refused_to_threads_too(site: Site) -> None:
    with rescind.Client(**site.options) as client:
        with pytest.raises(UnicodeEncodeError), client.effect("k", flag=FLAG, key="1", payload={}, subject=HALF):
            pass
        with capture(client, "2") as effect:
            assert not effect.replayed
