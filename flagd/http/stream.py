"""The stream and the snapshot, for SDKs: a kill reaches a thousand of them as one encoded event (P1, P2).

Server-sent events (WHATWG HTML, section 9.2): `snapshot`, `change`, `heartbeat`, each with the revision as its id. Whoever
comes back with `Last-Event-ID` at the present revision gets a heartbeat first, everyone else the whole snapshot: never a
change that does not directly follow what they have.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from urllib.parse import parse_qs, unquote

from rescind import wire

from flagd.broadcast import Event
from flagd.http import gate
from flagd.http.gate import Header, Receive, Scope, Send
from flagd.http.sse import pour, until_gone
from flagd.instances import TEXT_MAX, Instances
from flagd.replica import Replica, Replicas
from flagd.rights import Rights
from runtime.clock import Clock
from runtime.errors import Code, Unavailable
from runtime.problem import Problem, send_problem
from runtime.tokens import Verifier, bearer

SCOPES = ("evaluate", "read")

_PATH = re.compile(r"/v1/environments/([^/]+)/(stream|snapshot)/?")


class StreamApp:
    """`GET /v1/environments/{e}/stream` and `.../snapshot`."""

    def __init__(self, replicas: Replicas, verifier: Verifier, instances: Instances, clock: Clock | None = None) -> None:
        self._replicas = replicas
        self._verifier = verifier
        self._instances = instances
        self._rights = Rights(lambda token: gate.authenticate(verifier, token), clock or Clock())

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
        self._rights.watch(token, subscription)
        if instance:
            self._instances.connect(replica.environment, instance)
        leaving = asyncio.create_task(until_gone(receive, subscription), name="flagd.stream.leaving")
        followed = _Followed(replica)
        try:
            first = followed.first(gate.text_header(scope, b"last-event-id"))
            await pour(subscription, first, followed.frame_of, send, _age(replica))
        finally:
            leaving.cancel()
            replica.leave(subscription)
            self._rights.unwatch(token, subscription)
            if instance:
                self._instances.disconnect(replica.environment, instance)


class _Followed:
    """What one stream is sent, event by event."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._sent = replica.revision

    def first(self, last_id: str | None) -> bytes:
        """At the beginning."""
        return (self._replica.heartbeat if last_id == str(self._sent) else self._replica.event).frame

    def frame_of(self, event: Event) -> bytes | None:
        """After an event of the replica."""
        following = due(event, self._sent, self._replica)
        if following is None:
            return None
        self._sent = following.revision
        return following.frame


def due(event: Event, sent: wire.Revision, replica: Replica) -> Event | None:
    """What goes to one who was sent this revision last: nothing older, and no change that does not follow it (P2)."""
    if event.kind == "heartbeat":
        return event if event.revision == sent else None
    if event.revision <= sent:
        return None
    return event if event.previous in (None, sent) else replica.event


def _age(replica: Replica) -> Header:
    """How many seconds ago this server last knew that there is no later revision (RFC 9111, 5.1)."""
    return b"age", b"%d" % math.ceil(replica.age_seconds)


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
