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
from sagas.core.stops import Case, Done, Grant, Stop
from sagas.instances.facts import Known
from sagas.instances.rows import QUERIES, columns
from sagas.instances.writes import ENGINE, Writes
from sagas.store import FlagName

OPEN = ("running", "waiting", "undoing", "killed")
CONTINUES = "continues"
"""Why what a rollback has taken of an instance is not undone yet: the instance goes on first."""


class Stops:
    """The kills that concern one flush's instances."""

    def __init__(self, connection: Connection, fences: Mapping[FlagName, Fence], writes: Writes) -> None:
        self._connection = connection
        self._fences = fences
        self._writes = writes
        self._by_environment = _split(fences)
        self._standing: dict[str, dict[str, Any]] = {}
        self._grants: dict[str, dict[str, list[Grant]]] = {}

    async def look(self, knowns: Iterable[Known]) -> None:
        """Read the rollbacks that may name something of these instances: none in good times, when no epoch has changed."""
        flags: set[FlagName] = set()
        for known in knowns:
            if known.row["state"] in OPEN and not known.row["laid"]:
                here = known.row["environment"]
                flags |= {(here, flag) for flag in stops.since(_done(known), self._by_environment.get(here, {}))}
        if flags:
            self._standing = _split(await store.rollbacks(self._connection, flags))
            for row in await self._connection.fetch(QUERIES.grants, *columns(sorted(flags), 2)):
                of_flag = self._grants.setdefault(row["environment"], {}).setdefault(row["flag"], [])
                of_flag.append(Grant(**{name: row[name] for name in Grant.__struct_fields__}))

    def of(self, known: Known) -> Stop | Grant | None:
        """What stops it, or the grant under which it goes on although it is killed, or null."""
        return None if known.row["is_off"] else stops.stop(self._case(known))

    def keeps(self, known: Known) -> Stop | None:
        """What keeps one that was stopped from going on, or null."""
        return stops.stays(self._case(known))

    def wait_for_end(self, known: Known, *, is_killed: bool) -> list[UUID]:
        """What rollbacks may have left until this instance ends, which it does now."""
        if known.row["flag"] not in self._grants.get(known.row["environment"], {}):
            return []
        return [each["id"] for each in known.effects if not is_killed or each["disposition_reason"] == CONTINUES]

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

    def _case(self, known: Known) -> Case:
        row = known.row
        here = row["environment"]
        return Case(
            flag=row["flag"],
            saga=row["saga"],
            version=row["version"],
            attributes=row["attributes"],
            effects=_done(known),
            fences=self._by_environment.get(here, {}),
            standing=self._standing.get(here, {}),
            grants=self._grants.get(here, {}),
        )


def _split(by_flag: Mapping[FlagName, Any]) -> dict[str, dict[str, Any]]:
    """By environment, and there by flag."""
    found: dict[str, dict[str, Any]] = {}
    for (environment, flag), value in by_flag.items():
        found.setdefault(environment, {})[flag] = value
    return found


def _is_taken(effect: Mapping[str, Any]) -> bool:
    """Whether the rollback of a kill has taken it. What provably never happened leaves its instance as it was."""
    return effect["carries"] == "kill" and (effect["disposition"], effect["status"]) != ("never_happened", "failed")


def _done(known: Known) -> list[Done]:
    return [
        Done(
            flag=effect["flag"],
            step=effect["step"],
            is_off=effect["is_off"],
            status=effect["status"],
            epoch=effect["epoch"],
            attributes=effect["attributes"],
            admitted_at=effect["admitted_at"],
            completed_at=effect["completed_at"],
            revision=(effect["revision_generation"], effect["revision"]),
            taken_by=effect["rollback_id"] if _is_taken(effect) else None,
            continues=effect["disposition_reason"] == CONTINUES,
        )
        for effect in known.effects
    ]
