"""The loop, short: every promise holds under every kind of fault (P8 to P18); docs/proof.md says how it runs for longer."""

from __future__ import annotations

import pytest

from load.chaos.faults import KINDS
from load.chaos.story import run

SEED = 1
SECONDS = 14.0


@pytest.mark.timeout(300)
async def test_every_promise_holds_under_faults() -> None:
    verdict = await run(SEED, SECONDS, lambda what, done: None)
    assert verdict.broken == {name: [] for name in verdict.broken}
    assert set(verdict.faults) == set(KINDS)
    assert verdict.history.started
    assert verdict.ends["done"]
