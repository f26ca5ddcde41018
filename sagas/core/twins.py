"""Two attempts that both acted are two effects, each undone (hazard 2): which success is a second one, and its name. Pure.

Attempts of one effect share its provider key, so a provider that knows the key answers them with one reference: what differs
beside it, a time, a request id, makes no second effect.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import Enum
from typing import Any
from uuid import UUID

from msgspec import Struct

REFERENCE = "id"
"""The field of a result that names what was done at the provider, where no definition says another."""

_TIME = ((1 << 48) - 1) << 80


class Success(Struct, frozen=True, kw_only=True):
    """A success on record, and the token of the attempt that it was."""

    token: str
    result: Any


class Beside(Enum):
    """What a success is beside those on record."""

    SAME = "same"
    """Told before, or the same thing done under the same key."""
    UNCLEAR = "unclear"
    """It names nothing, or one attempt says two things: evidence for people."""
    SECOND = "second"


def successes(token: str, result: Any, evidence: Sequence[dict[str, Any]]) -> list[Success]:
    """The successes on record: the row's own, its present attempt's unless the evidence knows whose, and the others."""
    others = [
        Success(token=one["token"], result=one.get("result"))
        for one in evidence
        if one.get("what") == "report" and one.get("outcome") == "succeeded"
    ]
    if any(one.result == result for one in others):
        return others
    return [Success(token=token, result=result), *others]


def beside(token: str, result: Any, known: Sequence[Success], reference: str = REFERENCE) -> Beside:
    """What the success of the attempt `token` is.

    >>> first = Success(token="a", result={"id": "pi_1"})
    >>> beside("b", {"id": "pi_2"}, [first]).name, beside("b", {"id": "pi_1", "at": 9}, [first]).name
    ('SECOND', 'SAME')
    """
    if any(_is_same(one.result, result, reference) for one in known):
        return Beside.SAME
    if result is None or any(one.token == token for one in known):
        return Beside.UNCLEAR
    return Beside.SECOND


def _is_same(one: Any, other: Any, reference: str) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        left, right = one.get(reference), other.get(reference)
        if left is not None and right is not None:
            return bool(left == right)
    return bool(one == other)


def second_id(effect_id: UUID, token: UUID) -> UUID:
    """The second effect's name: the same whenever the report is repeated; a UUID version 7 of the first one's time.

    >>> second_id(UUID("0199a1b2-c3d4-7000-8000-000000000001"), UUID(int=7)).version
    7
    """
    chance = int.from_bytes(hashlib.sha256(effect_id.bytes + token.bytes).digest()[:16], "big")
    low, high = chance & ((1 << 62) - 1), chance >> 116
    return UUID(int=(effect_id.int & _TIME) | 0x7 << 76 | high << 64 | 0b10 << 62 | low)
