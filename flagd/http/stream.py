"""The stream and the snapshot, for SDKs: a kill reaches a thousand of them as one encoded event (P1, P2).

Server-sent events (WHATWG HTML, section 9.2): `snapshot`, `change`, `heartbeat`, each with the revision as its id. Whoever
comes back with `Last-Event-ID` at the present revision gets a heartbeat first, everyone else the whole snapshot: never a
change that does not directly follow what they have.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
from urllib.parse import parse_qs, unquote

from rescind import wire

from flagd.broadcast import Event, Subscription
from flagd.http import gate
from flagd.http.gate import Header, Receive, Scope, Send
from flagd.instances import TEXT_MAX, Instances
from flagd.replica import Replica, Replicas
from runtime.clock import Clock
from runtime.errors import Code, Unavailable
from runtime.problem import Problem, send_problem
from runtime.tokens import Verifier, bearer

SCOPES = ("evaluate", "read")
REVOKED_SECONDS = 0.5
"""How often the tokens of open streams are looked at: a revocation holds within a second."""

log = logging.getLogger("rescind.flagd.stream")
_PATH = re.compile(r"/v1/environments/([^/]+)/(stream|snapshot)/?")
_NO_CACHE: Header = (b"cache-control", b"no-cache, no-transform")
_STREAM: list[Header] = [(b"content-type", b"text/event-stream"), _NO_CACHE, (b"x-accel-buffering", b"no")]
"""And `age`: how many seconds ago this server last knew that there is no later revision (RFC 9111, 5.1)."""


class StreamApp:
    """`GET /v1/environments/{e}/stream` and `.../snapshot`."""

    def __init__(self, replicas: Replicas, verifier: Verifier, instances: Instances, clock: Clock | None = None) -> None:
        self._replicas = replicas
        self._verifier = verifier
        self._instances = instances
        self._clock = clock or Clock()
        self._open: dict[str, set[Subscription]] = {}
        self._watching: asyncio.Task[None] | None = None

    @staticmethod
    def matches(path: str) -> bool:
        """Whether this application answers the path."""
        return _PATH.fullmatch(path) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            environment, what = self._target(scope)
            token = bearer(scope["headers"])
            principal = await gate.authenticate(self._verifier, token)
            gate.require_any(principal, SCOPES, environment)
            replica = await self._replicas.get(environment)
        except Exception as error:  # the boundary: whatever happens becomes an answer
            await send_problem(send, error)
            return
        if what == "snapshot":
            await self._reach(replica, scope)
            await _snapshot(replica, scope, send)
        else:
            await self._stream(replica, token or "", scope, receive, send)

    def _target(self, scope: Scope) -> tuple[str, str]:
        match = _PATH.fullmatch(scope["path"])
        if match is None:
            raise Problem(404, Code.NOT_FOUND, "Not found", "There is nothing here.")
        if scope["method"] not in ("GET", "HEAD"):
            raise gate.wrong_method("GET")
        return unquote(match[1]), match[2]

    async def _reach(self, replica: Replica, scope: Scope) -> None:
        """`?at_least=<revision>`: look at PostgreSQL before answering, if this replica is behind it (hazard 19).

        A hint from outside: what is no revision, or one that does not exist, costs a shared look and changes nothing.
        """
        asked = _query(scope, "at_least")
        with contextlib.suppress(ValueError, Unavailable):
            if asked and (at_least := wire.Revision.parse(asked)) > replica.revision:
                await self._replicas.refresh(replica.environment, at_least)

    async def _stream(self, replica: Replica, token: str, scope: Scope, receive: Receive, send: Send) -> None:
        instance = _instance(scope)
        subscription = replica.subscribe()
        self._watch(token, subscription)
        if instance:
            self._instances.connect(replica.environment, instance)
        leaving = asyncio.create_task(_until_gone(receive, subscription), name="flagd.stream.leaving")
        try:
            await _write(replica, subscription, gate.text_header(scope, b"last-event-id"), send)
        finally:
            leaving.cancel()
            replica.leave(subscription)
            self._unwatch(token, subscription)
            if instance:
                self._instances.disconnect(replica.environment, instance)

    def _watch(self, token: str, subscription: Subscription) -> None:
        self._open.setdefault(token, set()).add(subscription)
        if self._watching is None:
            self._watching = asyncio.create_task(self._close_revoked(), name="flagd.stream.revoked")

    def _unwatch(self, token: str, subscription: Subscription) -> None:
        subscriptions = self._open.get(token, set())
        subscriptions.discard(subscription)
        if not subscriptions:
            self._open.pop(token, None)

    async def _close_revoked(self) -> None:
        """One look per token, not per stream, for as long as streams are open."""
        try:
            while self._open:
                await self._clock.sleep(REVOKED_SECONDS)
                for token in list(self._open):
                    await self._close_if_revoked(token)
        finally:
            self._watching = None

    async def _close_if_revoked(self, token: str) -> None:
        try:
            await gate.authenticate(self._verifier, token)
        except Problem as problem:
            if problem.status == 401:
                for subscription in self._open.pop(token, set()):
                    subscription.close()
        except Unavailable as error:  # whether it is revoked cannot be told now: a later look will
            log.debug("open streams: %s", error)


async def _write(replica: Replica, subscription: Subscription, last_id: str | None, send: Send) -> None:
    """Everything a stream is sent, until it ends; one that is too slow to take it is cut off where it stands."""
    writer = asyncio.current_task()
    assert writer is not None
    subscription.on_slow = writer.cancel
    sent = replica.revision
    first = replica.heartbeat if last_id == str(sent) else replica.event
    try:
        await send({"type": "http.response.start", "status": 200, "headers": [*_STREAM, _age(replica)]})
        await send({"type": "http.response.body", "body": first.frame, "more_body": True})
        async for event in subscription:
            following = due(event, sent, replica)
            if following is not None:
                sent = following.revision
                await send({"type": "http.response.body", "body": following.frame, "more_body": True})
    except asyncio.CancelledError:
        if not subscription.was_slow:
            raise
        writer.uncancel()
    else:
        await send({"type": "http.response.body", "body": b""})


def due(event: Event, sent: wire.Revision, replica: Replica) -> Event | None:
    """What goes to one who was sent this revision last: nothing older, and no change that does not follow it (P2)."""
    if event.kind == "heartbeat":
        return event if event.revision == sent else None
    if event.revision <= sent:
        return None
    return event if event.previous in (None, sent) else replica.event


def _age(replica: Replica) -> Header:
    return b"age", b"%d" % math.ceil(replica.age_seconds)


async def _until_gone(receive: Receive, subscription: Subscription) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    subscription.close()


def _instance(scope: Scope) -> str:
    named = _query(scope, "instance")
    return named if len(named) <= TEXT_MAX else ""


def _query(scope: Scope, name: str) -> str:
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get(name, [""])[0]


async def _snapshot(replica: Replica, scope: Scope, send: Send) -> None:
    etag = f'"{replica.revision}"'
    headers: list[Header] = [(b"etag", etag.encode()), (b"cache-control", b"no-cache"), _age(replica)]
    asked = gate.text_header(scope, b"if-none-match") or ""
    if any(tag.strip().removeprefix("W/") in (etag, "*") for tag in asked.split(",")):
        await send({"type": "http.response.start", "status": 304, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    await gate.reply(send, 200, b"" if scope["method"] == "HEAD" else replica.encoded, gate.JSON, *headers)
