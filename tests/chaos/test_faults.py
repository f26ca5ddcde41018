"""The schedule follows from its seed, and a provider that behaves badly keeps an honest ledger."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from demo.asgi import DroppedError, Request
from load.chaos.faults import KINDS, schedule
from load.chaos.provider import Ask, Provider


def test_a_schedule_follows_from_its_seed() -> None:
    assert schedule(3, 60.0) == schedule(3, 60.0) != schedule(4, 60.0)


def test_a_short_run_meets_every_kind() -> None:
    for seed in range(20):
        assert {fault.kind for fault in schedule(seed, 20.0)} == set(KINDS)


def test_kinds_come_by_turns() -> None:
    counts = Counter(fault.kind for fault in schedule(5, 600.0))
    assert max(counts.values()) - min(counts.values()) <= 1


async def post(provider: Provider, path: str, key: str | None, effect: str = "e1") -> int:
    """The status; 0 where the connection is closed."""
    body = msgspec.json.encode(Ask(key=key, effect_id=effect, saga="order", order="o1", step="reserve"))
    try:
        return (await provider.handle(Request(method="POST", path=path, query={}, headers={}, body=body))).status
    except DroppedError:
        return 0


@pytest.fixture
def provider() -> Provider:
    provider = Provider(1)
    provider.is_faulty = False
    return provider


async def test_a_key_acts_once_and_without_one_every_request_acts(provider: Provider) -> None:
    assert [await post(provider, "/act", "k"), await post(provider, "/act", "k")] == [200, 200]
    assert len(provider.entries) == 1
    await post(provider, "/act", None)
    assert len(provider.entries) == 2


async def test_what_comes_after_its_undoing_is_refused(provider: Provider) -> None:
    assert await post(provider, "/undo", "u") == 200
    assert await post(provider, "/act", "k") == 410
    assert [entry.verb for entry in provider.entries] == ["void"]


async def test_whatever_it_answers_one_key_acts_at_most_once() -> None:
    provider = Provider(2)
    statuses = [await post(provider, "/act", f"k{number // 4}", f"e{number // 4}") for number in range(400)]
    counts = Counter(entry.effect_id for entry in provider.entries)
    assert set(counts.values()) == {1}
    assert {0, 200, 409, 429, 500} <= set(statuses)
