"""What is answered of a flag, encoded once per prepared outcome: an evaluation then costs a look-up and no encoding.

Generous where the released clients are strict: there is always a `variant`, empty where none was chosen; every failure has
`errorDetails`; a number of a flag with floats is a float; a value that is left to the caller is absent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType
from rescind import wire
from rescind.evaluation import Evaluator, Resolution

from flagd.http.gate import JSON, Header
from flagd.replica import Replica

REVISION = wire.HEADER.encode()

AT_ONCE = 20
"""Flags that are compiled before others get their turn: a few milliseconds."""
KEPT_MIN = 1_000
KEPT_PER_FLAG = 8
CLOCK = (b'"$flagd', b'"var":{', b'"var":[{', b'"var":[[')
"""What a rule that reads the clock has in it, written out."""
_REASONS = {"STATIC": "STATIC", "TARGETING_MATCH": "TARGETING_MATCH", "SPLIT": "SPLIT", "DISABLED": "DISABLED"}
"""OFREP has no others for a success: everything else is UNKNOWN."""


class Success(Struct, frozen=True, omit_defaults=True):
    """`evaluationSuccess`; without `value` the caller uses its own default."""

    key: str
    reason: str
    variant: str
    value: Any = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET


class Failure(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """`evaluationFailure` and `flagNotFound`; without `key` that of a whole request."""

    error_code: str
    error_details: str
    key: str | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET


encode = msgspec.json.Encoder().encode
Answer = tuple[int, list[Header], bytes]
"""Status, headers and body."""


class Kept(NamedTuple):
    """What is answered of one outcome."""

    outcome: Resolution
    status: int
    length: Header
    body: bytes


class Answers:
    """The answers of one environment: of a flag for a context, and of all of them.

    What was encoded is kept by the identity of the outcome that the evaluator prepared, which this keeps alive.
    """

    def __init__(self, environment: str) -> None:
        self._environment = environment
        self._kept: dict[tuple[str, int], Kept] = {}
        self._timed: tuple[Evaluator, bool] | None = None
        self._clocked: dict[str, tuple[wire.SnapshotFlag, bool]] = {}
        self._ready: dict[bool, Evaluator] = {}
        self._head: tuple[wire.Revision, Header] | None = None

    def one(self, replica: Replica, key: str, context: dict[str, Any]) -> Answer:
        """The answer of a flag that exists."""
        outcome = _outcome_of(replica, context)(key, context)
        kept = self._kept.get((key, id(outcome))) or self._keep(replica, key, outcome)
        return kept.status, [JSON, self.head(replica), kept.length], kept.body

    async def prepare(self, replica: Replica, context: dict[str, Any]) -> None:
        """Have all flags ready for `all`, a few at a time: thousands of them would hold up the kills of this process."""
        evaluator, without_key = replica.evaluator, not context.get("targetingKey")
        if self._ready.get(without_key) is evaluator:
            return
        flags = list(replica.snapshot.flags.items())
        for start in range(0, len(flags), AT_ONCE):
            few = flags[start : start + AT_ONCE]
            evaluator.compile([key for key, _ in few], without_key=without_key)
            for key, flag in few:
                self._may_read_clock(key, flag)
            await asyncio.sleep(0)
        self._ready[without_key] = evaluator

    def all(self, replica: Replica, context: dict[str, Any]) -> bytes:
        """The members of `flags`, by key."""
        outcome_of, kept = _outcome_of(replica, context), self._kept
        parts = []
        for key in replica.snapshot.flags:
            outcome = outcome_of(key, context)
            parts.append((kept.get((key, id(outcome))) or self._keep(replica, key, outcome)).body)
        return b",".join(parts)

    def whole(self, replica: Replica, status: int, body: bytes, *headers: Header) -> Answer:
        """An answer that is made once."""
        return status, [JSON, *headers, self.head(replica), _length(body)], body

    def head(self, replica: Replica) -> Header:
        """The revision that is answered from."""
        revision, head = replica.snapshot.revision, self._head
        if head is None or head[0] is not revision:
            head = self._head = (revision, (REVISION, f"{self._environment}.{revision}".encode()))
        return head[1]

    def _keep(self, replica: Replica, key: str, outcome: Resolution) -> Kept:
        status, body = _encoded(key, outcome, replica)
        if len(self._kept) >= KEPT_MIN + KEPT_PER_FLAG * len(replica.snapshot.flags):
            self._kept.clear()
        kept = self._kept[key, id(outcome)] = Kept(outcome, status, _length(body), body)
        return kept

    def reads_clock(self, replica: Replica) -> bool:
        """Whether any rule may read `$flagd.timestamp`; one that computes what it reads may."""
        if self._timed is None or self._timed[0] is not replica.evaluator:
            snapshot = replica.snapshot
            self._clocked = {key: kept for key, kept in self._clocked.items() if key in snapshot.flags}
            may = _may_read_clock(snapshot.evaluators) or any(
                map(self._may_read_clock, snapshot.flags, snapshot.flags.values())
            )
            self._timed = (replica.evaluator, may)
        return self._timed[1]

    def _may_read_clock(self, key: str, flag: wire.SnapshotFlag) -> bool:
        kept = self._clocked.get(key)
        if kept is None or kept[0] is not flag:
            kept = self._clocked[key] = (flag, _may_read_clock(flag.definition.get("targeting")))
        return kept[1]


def _may_read_clock(rules: Any) -> bool:
    text = encode(rules)
    return any(mark in text for mark in CLOCK)


def failed(code: str, detail: str, key: str) -> Failure:
    """A failure; without a key that of a whole request."""
    return Failure(code, detail, key or UNSET)


def _length(body: bytes) -> Header:
    return b"content-length", str(len(body)).encode()


def _outcome_of(replica: Replica, context: dict[str, Any]) -> Callable[[str, dict[str, Any]], Resolution]:
    """Without a targeting key, a rule that needs one is an error."""
    return replica.evaluator.outcome if context.get("targetingKey") else replica.evaluator.outcome_without_key


def _encoded(key: str, outcome: Resolution, replica: Replica) -> tuple[int, bytes]:
    metadata = scalars(outcome.metadata) or UNSET
    if outcome.error_code is not None and outcome.variant is None:
        detail = outcome.error_details or "The flag could not be evaluated."
        return 400, encode(Failure(str(outcome.error_code), detail, key, metadata))
    value = outcome.value
    if outcome.variant is None:
        value = UNSET
    elif type(value) is int and _has_floats(replica, key):
        value = float(value)
    reason = _REASONS.get(str(outcome.reason), "UNKNOWN")
    return 200, encode(Success(key, reason, outcome.variant or "", value, metadata))


def scalars(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What OFREP takes for metadata."""
    return {name: value for name, value in metadata.items() if isinstance(value, bool | str | int | float)}


def _has_floats(replica: Replica, key: str) -> bool:
    variants = replica.snapshot.flags[key].definition.get("variants")
    return isinstance(variants, dict) and any(isinstance(value, float) for value in variants.values())
