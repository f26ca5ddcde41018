"""Time and chance."""

import time

from runtime.clock import Clock, Entropy
from tests.waiting import until_sync


def test_uuids_are_version_7_and_ordered_by_time():
    entropy = Entropy()
    first = entropy.uuid7()
    second = until_sync(lambda: (later := entropy.uuid7()).int >> 80 != first.int >> 80 and later)
    assert first.version == second.version == 7
    assert first.variant == "specified in RFC 4122"
    assert first < second
    assert abs((first.int >> 80) / 1000 - time.time()) < 60
    assert len({entropy.uuid7() for _ in range(1000)}) == 1000


async def test_the_clock_is_aware_and_sleeps():
    clock = Clock()
    assert clock.now().utcoffset().total_seconds() == 0
    before = clock.monotonic()
    await clock.sleep(0.01)
    await clock.sleep(-1)
    assert clock.monotonic() - before >= 0.01


def test_chance_is_in_range():
    entropy = Entropy()
    assert len(entropy.token_bytes(32)) == 32
    assert all(0 <= entropy.random() < 1 for _ in range(100))
