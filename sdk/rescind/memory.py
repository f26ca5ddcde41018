"""What this instance lately learnt of keys: so that nothing is done twice, or under a second name, without the server (P9).

Bounded, and gone with the process: what it has forgotten, a provider that was given the same key still knows.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec
from msgspec import Struct

from rescind.wire import EffectRequest

KEYS_MAX = 10_000
RESULT_BYTES_MAX = 4_096
"""A larger result is not remembered."""

FAILED = ("failed", "not_started")


class Known(Struct, frozen=True, kw_only=True):
    """The last that was learnt of a key. `outcome` null: a body of it runs, here or where that was learnt."""

    effect_id: str
    flag: str
    payload: dict[str, Any]
    outcome: str | None = None
    result: Any = None
    has_result: bool = False
    attempt: int = 1


class Memory:
    """Of one instance: the keys of flags that let effects go on without the server."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], Known] = OrderedDict()

    def recall(self, request: EffectRequest) -> Known | None:
        """What is known of the request's key."""
        return self._known.get((request.kind, request.key))

    def begin(self, request: EffectRequest, effect_id: str, attempt: int) -> None:
        """A body of it may begin."""
        self._put(request, Known(effect_id=effect_id, flag=request.flag, payload=request.payload, attempt=attempt))

    def end(self, request: EffectRequest, effect_id: str, outcome: str, result: Any = None) -> None:
        """What became of it."""
        before = self.recall(request)
        fits = len(msgspec.json.encode(result)) <= RESULT_BYTES_MAX
        known = Known(
            effect_id=effect_id,
            flag=request.flag,
            payload=request.payload,
            outcome=outcome,
            result=result if fits else None,
            has_result=fits,
            attempt=before.attempt if before else 1,
        )
        self._put(request, known)

    def _put(self, request: EffectRequest, known: Known) -> None:
        name = request.kind, request.key
        self._known[name] = known
        self._known.move_to_end(name)
        if len(self._known) > KEYS_MAX:
            self._known.popitem(last=False)
