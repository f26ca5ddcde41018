"""A payment provider that behaves badly on purpose, and whose own ledger is the judge.

It recognises a key for `WINDOW_SECONDS` and no longer, confirms late, loses replies, fails with 500 and refuses with 429. Mails
have no key. Undoing what was not done closes the key: what comes late is refused, as the barrier of sdk/rescind/barrier does.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from typing import Any, Literal

import msgspec
from msgspec import Struct

from demo.asgi import App, DroppedError, Reply, Request, application, json_reply
from load.chaos.history import Entry

WINDOW_SECONDS = 30.0
LATE_SECONDS = 0.6
PENDING: dict[str, Any] = {}
FATES = ("lost_reply", "late", "error", "done_and_error", "busy")
FATE_SHARE = 0.2
DECLINED_SHARE = 0.08


class Ask(Struct, frozen=True, kw_only=True):
    """The body of `POST /act` and `POST /undo`. Without `key` nothing is recognised."""

    key: str | None
    effect_id: str
    saga: str
    order: str
    step: str
    amount: int = 0


class Provider:
    """`is_faulty`: whether fates are dealt; they come from `seed`."""

    def __init__(self, seed: int) -> None:
        self.entries: list[Entry] = []
        self.is_faulty = True
        self.met: Counter[str] = Counter()
        self._chance = random.Random(f"provider {seed}")
        self._keys: dict[str, tuple[float, dict[str, Any]]] = {}
        self._closed: set[str] = set()
        self._moments = itertools.count(1)
        self._asked: dict[tuple[str, str], int] = {}
        self._late: set[asyncio.Task[None]] = set()

    def app(self) -> App:
        """The ASGI application."""
        return application(self.handle)

    async def handle(self, request: Request) -> Reply:
        """One request. Raises `DroppedError` where the connection is closed without a reply."""
        ask = msgspec.json.decode(request.body, type=Ask)
        verb: Literal["act", "undo"] = "undo" if request.path == "/undo" else "act"
        self._asked.setdefault((verb, ask.effect_id), next(self._moments))
        fate = self._fate()
        if fate == "busy":
            return json_reply({}, 429)
        if fate == "error":
            return json_reply({}, 500)
        known = self._known(ask)
        if known is PENDING:
            return json_reply({}, 409)
        if known is not None:
            return json_reply(known)
        if verb == "act" and ask.effect_id in self._closed:
            return json_reply({}, 410)
        if verb == "act" and self._declines(ask):
            return json_reply({}, 402)
        if verb == "undo" and self._is_pending(ask.effect_id):
            return json_reply({}, 409)
        if fate == "late":
            self._begin_late(verb, ask)
            raise DroppedError
        answer = self._do(verb, ask)
        if fate == "lost_reply":
            raise DroppedError
        return json_reply(answer, 500 if fate == "done_and_error" else 200)

    def _fate(self) -> str | None:
        if not self.is_faulty or self._chance.random() >= FATE_SHARE:
            return None
        fate = self._chance.choice(FATES)
        self.met[fate] += 1
        return fate

    def _declines(self, ask: Ask) -> bool:
        """Some customers have no money, always the same."""
        return ask.amount > 0 and random.Random(ask.order).random() < DECLINED_SHARE

    def _known(self, ask: Ask) -> dict[str, Any] | None:
        if ask.key is None or ask.key not in self._keys:
            return None
        since, answer = self._keys[ask.key]
        return answer if time.monotonic() - since < WINDOW_SECONDS else None

    def _is_pending(self, key: str) -> bool:
        return key in self._keys and self._keys[key][1] is PENDING

    def _begin_late(self, verb: Literal["act", "undo"], ask: Ask) -> None:
        if ask.key is not None:
            self._keys[ask.key] = (time.monotonic(), PENDING)
        task = asyncio.create_task(self._do_late(verb, ask))
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _do_late(self, verb: Literal["act", "undo"], ask: Ask) -> None:
        await asyncio.sleep(LATE_SECONDS)
        self._do(verb, ask)

    def _do(self, verb: Literal["act", "undo"], ask: Ask) -> dict[str, Any]:
        acts = [entry for entry in self.entries if entry.verb == "act" and entry.effect_id == ask.effect_id]
        is_void = verb == "undo" and not acts
        if is_void:
            self._closed.add(ask.effect_id)
        entry = Entry(
            number=next(self._moments),
            asked=self._asked[verb, ask.effect_id],
            verb="void" if is_void else verb,
            effect_id=ask.effect_id,
            saga=ask.saga,
            order=ask.order,
            step=ask.step,
            amount=ask.amount,
        )
        self.entries.append(entry)
        answer = {"id": f"{entry.verb}-{entry.number}"}
        if ask.key is not None:
            self._keys[ask.key] = (time.monotonic(), answer)
        return answer
