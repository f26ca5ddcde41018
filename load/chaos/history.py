"""What is kept of one run of the loop: what the provider did, what was acknowledged, what the database says in the end."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Name = tuple[str, str]
"""Saga, and the caller's id of the instance."""


class Entry(Struct, frozen=True, kw_only=True):
    """One line of the provider's own ledger; `number` rises in the order in which things were asked for and done.

    `asked`: when it was first asked for, in the same counting; zero where that is not known. `void`: there was nothing to undo,
    and the key is closed for what comes late.
    """

    number: int
    verb: Literal["act", "undo", "void"]
    effect_id: str
    saga: str
    order: str
    step: str
    amount: int = 0
    asked: int = 0


class Instance(Struct, frozen=True, kw_only=True):
    """A saga instance in the end. `skipped`: steps that a person counted as done."""

    saga: str
    id: str
    state: str
    reason: str | None = None
    skipped: list[str] = []


class Effect(Struct, frozen=True, kw_only=True):
    """An effect in the end. `completed`: when its success was reported, in seconds; `disposition`: null where none is;
    `was_open`: its outcome was not known when it was to be undone."""

    id: str
    saga: str
    order: str
    step: str
    status: str
    flag: str = ""
    epoch: int = 0
    is_off: bool = False
    was_open: bool = False
    admitted: float = 0.0
    completed: float | None = None
    disposition: str | None = None
    reason: str | None = None
    compensation_id: str | None = None
    compensation: str | None = None
    """the state of its compensation"""
    compensation_token: str | None = None
    """of the last attempt"""


class Write(Struct, frozen=True, kw_only=True):
    """One change of a fenced row, in commit order of that row: of a range's lease, or of an effect's attempt."""

    row: str
    fence: int
    """the lease's token, the attempt's number"""
    holder: str
    """who held the lease, the token of the attempt"""
    at: float = 0.0
    """by PostgreSQL's clock, in seconds"""


class Started(Struct, frozen=True, kw_only=True):
    """A start that was answered `started`."""

    saga: str
    id: str


class Reported(Struct, frozen=True, kw_only=True):
    """A report that was answered `recorded`. `id`: of the effect, or of the compensation; `at`: by this machine's clock, zero
    where that is not known."""

    id: str
    verb: str
    outcome: str
    at: float = 0.0
    token: str = ""


class Told(Struct, frozen=True, kw_only=True):
    """An end that somebody who waited was told."""

    saga: str
    id: str
    state: str


class Closed(Struct, frozen=True, kw_only=True):
    """A flag that a kill closed: up to which epoch, and when every admission under it had ended, in seconds."""

    flag: str
    epoch: int
    at: float


class Rollback(Struct, frozen=True, kw_only=True):
    """A kill's rollback in the end. `outcome`: why it undid nothing."""

    id: str
    state: str
    outcome: str | None = None
    closed: list[Closed] = []


class Terms(Struct, frozen=True, kw_only=True):
    """A step as it was declared, as far as the checks ask."""

    name: str
    moves_money: bool = False
    group: str | None = None
    """steps of one group run beside each other"""


class History(Struct, frozen=True, kw_only=True):
    """One run. `left`: rows that still ask for work, by table."""

    sagas: dict[str, list[Terms]]
    entries: list[Entry] = []
    instances: list[Instance] = []
    effects: list[Effect] = []
    leases: list[Write] = []
    attempts: list[Write] = []
    started: list[Started] = []
    reported: list[Reported] = []
    told: list[Told] = []
    rollbacks: list[Rollback] = []
    left: dict[str, int] = {}
