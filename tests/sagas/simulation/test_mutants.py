"""Servers whose SQL is broken on purpose: the simulation finds each within a few seeds, by the promise that it breaks."""

from __future__ import annotations

import pytest

from tests.sagas.instances.world import World
from tests.sagas.simulation.test_simulation import lived, world

__all__ = ["world"]
SEEDS_MAX = 16
MUTANTS: dict[str, tuple[str, tuple[str, str]]] = {
    "undone in any order": (
        "order (P14)",
        ("AND x.state = 'pending'\n    OFFSET 0", "AND x.state = 'pending' AND false\n    OFFSET 0"),
    ),
    "a fence that is never closed": (
        "fenced for good (P8, P12)",
        ("f.epoch, f.closed, f.rollback_id", "f.epoch, false AS closed, f.rollback_id"),
    ),
    "a lease that is taken over under its old token": (
        "one writer per fence (P18)",
        ("token = l.token + 1", "token = l.token"),
    ),
    "a success that is acknowledged and not written": (
        "nothing acknowledged is lost (P10)",
        ("status = coalesce(n.status, e.status)", "status = e.status"),
    ),
}
"""The promise, a piece of SQL, and what is said instead."""


@pytest.mark.parametrize("mutant", MUTANTS)
async def test_a_mutant_is_found(world: World, mutant: str) -> None:
    promise, twist = MUTANTS[mutant]
    for seed in range(1, SEEDS_MAX + 1):
        _, broken = await lived(world, seed, 0, "before", twist)
        if promise in broken:
            return
    raise AssertionError("not found")
