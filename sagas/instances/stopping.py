"""Instances that a kill stops, and those that go on once it is lifted (P8, P17, docs/decisions/0029).

Judged under the flags' locks, as an admission is: a kill that commits meanwhile waits with its set for whoever went on, and a
lift that commits meanwhile finds whoever was stopped (`sagas.stopped`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from runtime.postgres import Connection
from sagas import store
from sagas.core import stops
from sagas.core.admission import Fence
from sagas.core.stops import Done, Stop
from sagas.instances.facts import Known
from sagas.instances.rows import QUERIES, columns
from sagas.instances.writes import ENGINE, Writes
from sagas.store import FlagName

OPEN = ("running", "waiting", "killed")


class Stops:
    """The kills that concern one flush's instances."""

    def __init__(self, connection: Connection, fences: Mapping[FlagName, Fence], writes: Writes) -> None:
        self._connection = connection
        self._fences = fences
        self._writes = writes
        self._by_environment = _split(fences)
        self._standing: dict[str, dict[str, Any]] = {}

    async def look(self, knowns: Iterable[Known]) -> None:
        """Read the rollbacks that may name something of these instances: none in good times, when no epoch has changed."""
        flags: set[FlagName] = set()
        for known in knowns:
            if known.row["state"] in OPEN and not known.row["laid"]:
                here = known.row["environment"]
                flags |= {(here, flag) for flag in stops.since(_done(known), self._by_environment.get(here, {}))}
        if flags:
            self._standing = _split(await store.rollbacks(self._connection, flags))

    def of(self, known: Known) -> Stop | None:
        """What stops it, or null."""
        return None if known.row["is_off"] else stops.stop(*self._case(known))

    def keeps(self, known: Known) -> Stop | None:
        """What keeps one that was stopped from going on, or null."""
        return stops.stays(*self._case(known))

    def note(self, known: Known, stop: Stop) -> None:
        """Write down that it is stopped, and where it is found once a kill that may have is lifted."""
        row = known.row
        if row["state"] != "killed":
            detail = {"flag": row["flag"], "rollbacks": [str(one) for one in stop.rollback_ids]}
            self._writes.say(row["uid"], "stopped", detail=detail)
        self._writes.stop(row["uid"], () if stop.is_taken else self._places(known))

    async def tell(self, knowns: Sequence[Known]) -> None:
        """Write into the histories of these which lift let them go on, and who lifted."""
        if not knowns:
            return
        names = sorted({(environment, flag, epoch) for known in knowns for environment, flag, epoch in self._places(known)})
        found = {
            (row["environment"], row["flag"]): row for row in await self._connection.fetch(QUERIES.openings, *columns(names, 3))
        }
        for known in knowns:
            opened = [found[place[:2]] for place in self._places(known) if place[:2] in found]
            self._say(known.row["uid"], opened[-1] if opened else None)
            self._writes.stop(known.row["uid"], ())

    def _say(self, uid: UUID, opened: Any | None) -> None:
        if opened is None:  # by a server that keeps no names, or after a restore
            self._writes.say(uid, "lifted")
            return
        detail = {"flag": opened["flag"], "epoch": opened["epoch"], "revision": f"{opened['generation']}.{opened['revision']}"}
        self._writes.say(uid, "lifted", detail=detail, by_whom=opened["by_whom"] or ENGINE, reason=opened["reason"])

    def _places(self, known: Known) -> list[tuple[str, str, int]]:
        """Its flags, with their epochs as they are now."""
        here = known.row["environment"]
        flags = {known.row["flag"], *(effect["flag"] for effect in known.effects)}
        return [(here, flag, self._fences[here, flag].epoch) for flag in sorted(flags) if (here, flag) in self._fences]

    def _case(self, known: Known) -> tuple[Any, ...]:
        row = known.row
        here = row["environment"]
        return row["flag"], row["attributes"], _done(known), self._by_environment.get(here, {}), self._standing.get(here, {})


def _split(by_flag: Mapping[FlagName, Any]) -> dict[str, dict[str, Any]]:
    """By environment, and there by flag."""
    found: dict[str, dict[str, Any]] = {}
    for (environment, flag), value in by_flag.items():
        found.setdefault(environment, {})[flag] = value
    return found


def _done(known: Known) -> list[Done]:
    return [
        Done(
            flag=effect["flag"],
            is_off=effect["is_off"],
            is_failed=effect["status"] == "failed",
            epoch=effect["epoch"],
            attributes=effect["attributes"],
            admitted_at=effect["admitted_at"],
            revision=(effect["revision_generation"], effect["revision"]),
            taken_by=effect["rollback_id"] if effect["carries"] == "kill" else None,
        )
        for effect in known.effects
    ]
