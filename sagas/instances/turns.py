"""What moves instances: one turn is what one request, one person or the clock has to say, and its answer."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from rescind.wire import InstanceStarted, Task, TaskClaim

from sagas.core.reports import Report
from sagas.core.sightings import Said


class Start(Struct, frozen=True, kw_only=True):
    """An instance to begin, read and found well formed."""

    environment: str
    saga: str
    id: str
    version: str
    input_json: str
    """Canonical."""
    input_hash: bytes
    attributes: dict[str, Any]
    attributes_json: str
    variant: str | None
    revision: tuple[int, int]
    subject: str | None
    run_by: str | None
    lease_seconds: float
    traceparent: str | None
    started_by: str


class Word(Struct, frozen=True, kw_only=True):
    """What a person, or a service, says to an instance: a verb, an event, an approval. `name`: the step or the wait meant."""

    uid: UUID
    environment: str
    fact: str
    name: str = ""
    detail: dict[str, Any] | None = None
    by_whom: str
    reason: str | None = None
    event_id: str | None = None
    operation: UUID | None = None
    """the bulk operation that says it, which stands in the audit log for all its instances"""


class Sighting(Struct, frozen=True, kw_only=True):
    """What a worker's look-up said of an effect in doubt, by the token of the question."""

    environment: str
    effect_id: UUID
    token: UUID
    said: Said
    told_json: str | None = None
    """The result of what was found; why it never happened, or why nobody can say."""
    worker: str = ""


class Hands:
    """What a worker can take in this moment, and what it was given."""

    def __init__(self, environment: str, claim: TaskClaim) -> None:
        self.environment = environment
        self.claim = claim
        self.acts = frozenset(claim.acts)
        self.tasks: list[Task] = []
        self._reserved = 0

    @property
    def room(self) -> int:
        """How many more it takes."""
        return self.claim.limit - len(self.tasks) - self._reserved

    def reserve(self) -> None:
        """Keep a place for a step that is being admitted."""
        self._reserved += 1

    def release(self) -> None:
        """Give the place back: it is taken by a task, or not at all."""
        self._reserved -= 1

    def takes(self, row: Any, step: str) -> bool:
        """Whether it can act this step of this instance now."""
        claim = self.claim
        return (
            self.room > 0
            and step in self.acts
            and row["version"] in claim.versions
            and row["saga"] == claim.saga
            and row["environment"] == self.environment
            and row["run_by"] in (None, claim.worker)
            and claim.instance in (None, row["id"])
        )

    def undoes(self, row: Any) -> bool:
        """Whether it can undo steps of this instance, and has room for some."""
        claim = self.claim
        return (
            self.room > 0
            and bool(claim.steps)
            and row["version"] in claim.versions
            and row["saga"] == claim.saga
            and row["environment"] == self.environment
        )


class Turn(Struct, kw_only=True, eq=False):
    """One turn. `passed`: waits whose time has come; `silent`: instances whose process was not heard of for a lease."""

    starts: list[Start] = []
    reports: list[Report] = []
    sightings: list[Sighting] = []
    sagas: frozenset[str] | None = None
    """of which the reporter may report; null: of all"""
    hands: Hands | None = None
    words: list[Word] = []
    uids: list[UUID] = []
    passed: list[tuple[UUID, str]] = []
    silent: list[UUID] = []

    def effects(self) -> list[UUID]:
        """Those of which it brings news."""
        return [report.effect_id for report in self.reports] + [sighting.effect_id for sighting in self.sightings]

    def instances(self) -> set[UUID]:
        """Those it names by themselves."""
        return {*self.uids, *self.silent, *(uid for uid, _ in self.passed), *(word.uid for word in self.words)}


class Heard(Struct, frozen=True, kw_only=True):
    """What became of a word: whether it changed something, and where the instance stands with it. `why`: why it was refused."""

    changed: bool
    state: str
    paused: bool
    why: str | None = None


class Answer(Struct, kw_only=True):
    """What a turn is answered."""

    started: list[InstanceStarted] = []
    reported: list[str] = []
    sighted: list[str] = []
    heard: list[Heard] = []
    tasks: list[Task] = []
    laid: bool = False
    """Beside it there came something to undo for workers."""


def plain(value: Any) -> str | None:
    """JSON text of a value for a query's column, null for none."""
    return None if value is None else msgspec.json.encode(value).decode()
