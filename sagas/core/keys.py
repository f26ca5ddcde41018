"""P9 as a table: what a caller with an idempotency key meets, by what is recorded of the key (P8, P9, hazards 2 and 4).

Of all callers with one key, one at a time holds the right to act. A compensation or a tombstone closes a generation of the
key for good; who comes with the off variant, or was evaluated under a later open epoch, opens the next.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from sagas.core.effects import Status


class Standing(StrEnum):
    """What is recorded of a key: of its present generation."""

    FREE = "free"
    ADMITTED = "admitted"
    """In progress, and its body is not known to have begun."""
    EXPIRED = "expired"
    """Admitted, not known to have begun, and past its start window; its lease still runs."""
    BEGUN = "begun"
    IN_DOUBT = "in_doubt"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    BEING_UNDONE = "being_undone"
    UNDONE = "undone"
    TOMBSTONED = "tombstoned"


class Asker(StrEnum):
    """Who asks, by what counts first."""

    DEAD = "dead"
    """The fence is closed for this ask."""
    OTHER_FLAG = "other_flag"
    OTHER_PAYLOAD = "other_payload"
    SAME_TOKEN = "same_token"  # noqa: S105 a repeat by the holder of the attempt
    LATER = "later"
    """Off variant, or evaluated in a later open epoch than the recorded effect's."""
    PLAIN = "plain"


class Verb(StrEnum):
    """What is done about an ask. The first four write."""

    ADMIT = "admit"
    AGAIN = "again"
    """The same effect, next attempt, new token."""
    NEXT = "next"
    """A new effect: the next generation of the key."""
    RENEW = "renew"
    """The same attempt and token, a new start window."""
    REPEAT = "repeat"
    """The same attempt, token and window."""
    IN_PROGRESS = "in_progress"
    REPLAYED = "replayed"
    KILLED = "killed"
    CONFLICT = "conflict"
    COMPENSATED = "compensated"
    TOMBSTONED = "tombstoned"


WRITES = frozenset({Verb.ADMIT, Verb.AGAIN, Verb.NEXT, Verb.RENEW})
COLUMNS = (Asker.DEAD, Asker.OTHER_FLAG, Asker.OTHER_PAYLOAD, Asker.SAME_TOKEN, Asker.LATER, Asker.PLAIN)
Row = tuple[Verb, Verb, Verb, Verb, Verb, Verb]

_ADMIT, _AGAIN, _NEXT, _RENEW, _REPEAT = Verb.ADMIT, Verb.AGAIN, Verb.NEXT, Verb.RENEW, Verb.REPEAT
_PROGRESS, _REPLAYED, _KILLED, _CONFLICT = Verb.IN_PROGRESS, Verb.REPLAYED, Verb.KILLED, Verb.CONFLICT
_COMPENS, _TOMB = Verb.COMPENSATED, Verb.TOMBSTONED

# fmt: off
TABLE: dict[Standing, Row] = {
    #                       dead     other flag other payload same token later      plain
    Standing.FREE:         (_KILLED, _ADMIT,    _ADMIT,       _ADMIT,    _ADMIT,    _ADMIT),
    Standing.ADMITTED:     (_KILLED, _CONFLICT, _CONFLICT,    _REPEAT,   _PROGRESS, _PROGRESS),
    Standing.EXPIRED:      (_KILLED, _CONFLICT, _CONFLICT,    _RENEW,    _PROGRESS, _PROGRESS),
    Standing.BEGUN:        (_KILLED, _CONFLICT, _CONFLICT,    _PROGRESS, _PROGRESS, _PROGRESS),
    Standing.IN_DOUBT:     (_KILLED, _CONFLICT, _CONFLICT,    _PROGRESS, _PROGRESS, _PROGRESS),
    Standing.SUCCEEDED:    (_KILLED, _CONFLICT, _CONFLICT,    _REPLAYED, _REPLAYED, _REPLAYED),
    Standing.FAILED:       (_KILLED, _NEXT,     _CONFLICT,    _AGAIN,    _AGAIN,    _AGAIN),
    Standing.BEING_UNDONE: (_KILLED, _CONFLICT, _CONFLICT,    _COMPENS,  _COMPENS,  _COMPENS),
    Standing.UNDONE:       (_KILLED, _COMPENS,  _CONFLICT,    _COMPENS,  _NEXT,     _COMPENS),
    Standing.TOMBSTONED:   (_KILLED, _TOMB,     _CONFLICT,    _TOMB,     _NEXT,     _TOMB),
}
# fmt: on

CLOSED = frozenset({Standing.UNDONE, Standing.TOMBSTONED})


class Recorded(Struct, frozen=True, kw_only=True):
    """What is recorded of a key: its present generation's effect, judged by PostgreSQL's clock at one snapshot."""

    effect_id: UUID
    generation: int
    payload_hash: bytes
    flag: str
    is_off: bool
    epoch: int
    attributes: dict[str, Any]
    status: Status
    attempt: int
    token: UUID
    begun: bool
    tombstoned: bool
    undone: bool
    result: Any = None
    saga: tuple[str | None, str | None, str | None] = (None, None, None)
    """Saga, instance and step."""
    undoing: tuple[str | None, str | None, str | None] = (None, None, None)
    """What picks how it is undone, beside the step: the saga's version, the kind's version, the subject."""
    revision: tuple[int, int] = (0, 0)
    admitted_at: Any = None
    lease_left_ms: int = 0
    start_left_ms: int = 0
    disposition: str | None = None
    """The state of what became of it by a rollback, if it has one."""
    is_gone: bool = False
    """Its history has gone by retention: this is what remains of it beside the key, and no rollback undoes it any more."""
    compensation: str | None = None
    """due or held, where an unfinished rollback covers it; none where one does and will not undo it."""


def standing(recorded: Recorded | None) -> Standing:
    """What is recorded, in the table's word.

    In progress turns into in doubt when the lease is over: that gives nobody the right to act (hazard 2).
    """
    if recorded is None:
        return Standing.FREE
    if recorded.undone or recorded.disposition in ("compensated", "irreversible", "skipped"):
        return Standing.UNDONE
    if recorded.tombstoned:
        return Standing.TOMBSTONED if recorded.status is Status.FAILED else _after_tombstone(recorded)
    match recorded.status:
        case Status.ADMITTED:
            return _in_progress(recorded)
        case Status.IN_DOUBT:
            return Standing.IN_DOUBT
        case Status.FAILED:
            return Standing.FAILED
        case Status.SUCCEEDED:
            return Standing.BEING_UNDONE if _is_due(recorded) else Standing.SUCCEEDED


def _after_tombstone(recorded: Recorded) -> Standing:
    """News that outranked a tombstone: the generation stays closed, and what happened under it is being undone."""
    return Standing.BEING_UNDONE if recorded.status is Status.SUCCEEDED and _is_due(recorded) else Standing.TOMBSTONED


def _is_due(recorded: Recorded) -> bool:
    return recorded.compensation in ("due", "held") or recorded.disposition in ("pending", "waiting")


def _in_progress(recorded: Recorded) -> Standing:
    if recorded.lease_left_ms <= 0:
        return Standing.IN_DOUBT
    if recorded.begun:
        return Standing.BEGUN
    return Standing.ADMITTED if recorded.start_left_ms > 0 else Standing.EXPIRED


def asker(
    recorded: Recorded | None, *, is_dead: bool, flag: str, payload_hash: bytes, token: UUID | None, is_later: bool
) -> Asker:
    """Who asks. `is_later` says that the ask may open the next generation; it then brings a payload and flag of its own."""
    if is_dead:
        return Asker.DEAD
    if recorded is None:
        return Asker.PLAIN
    if is_later and standing(recorded) in CLOSED:
        return Asker.LATER
    if payload_hash != recorded.payload_hash:
        return Asker.OTHER_PAYLOAD
    if flag != recorded.flag:
        return Asker.OTHER_FLAG
    if token is not None and token == recorded.token:
        return Asker.SAME_TOKEN
    return Asker.LATER if is_later else Asker.PLAIN


def decide(recorded: Recorded | None, who: Asker) -> Verb:
    """What is done about an ask of `who`, with this on record.

    >>> decide(None, Asker.DEAD)
    <Verb.KILLED: 'killed'>
    """
    return TABLE[standing(recorded)][COLUMNS.index(who)]


def compensation_word(recorded: Recorded) -> str:
    """due, held, none or done: what becomes, or became, of what is recorded."""
    match recorded.disposition:
        case "compensated":
            return "done"
        case "irreversible" | "skipped" | "never_happened":
            return "none"
        case "pending" | "waiting":
            return "due"
        case _:
            return recorded.compensation or "none"


def canonical(value: object) -> bytes:
    """JSON with sorted keys, in which 1.0 and 1 are one number: equal for equal documents, whoever wrote them.

    >>> canonical({"b": 1.0, "a": [True]})
    b'{"a":[true],"b":1}'
    """
    text = msgspec.json.encode(value, order="deterministic")
    return msgspec.json.encode(_whole(value), order="deterministic") if b".0" in text else text


def _whole(value: object) -> object:
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {key: _whole(child) for key, child in value.items()}
        case list():
            return [_whole(child) for child in value]
        case _:
            return value


_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def holds_nul(text: bytes) -> bool:
    """Whether this JSON has a NUL character in a string, which PostgreSQL's jsonb cannot hold; an escaped backslash before
    `u0000` is only how people write about it.

    >>> holds_nul(rb'"a\\u0000"'), holds_nul(rb'"a\\\\u0000"')
    (True, False)
    """
    return b"\\u0000" in text and _NUL.search(text) is not None


def payload_hash(canonical_payload: bytes) -> bytes:
    """32 bytes that stand for the payload."""
    return hashlib.sha256(canonical_payload).digest()
