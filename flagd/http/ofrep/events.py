"""OFREP's event stream (0.3.0, ADR 0008): says that flags have changed, never what they are now.

The first event comes at once, except to one who comes back with the present revision, so that nothing is missed between a
bulk answer and its stream. `etag` is the revision: the `flagConfigEtag` of the request that follows asks for at least that.
"""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs, urlencode

import msgspec
from rescind import wire

from flagd.broadcast import Event
from flagd.http import gate
from flagd.http.gate import Receive, Scope, Send
from flagd.http.ofrep import grants
from flagd.http.sse import pour, until_gone
from flagd.replica import Replica, Replicas
from flagd.rights import Rights
from runtime.clock import Clock
from runtime.errors import Code
from runtime.problem import Problem
from runtime.tokens import Verifier, digest

PATH = "/ofrep/v1/events"
SCOPE = "evaluate"
STREAMS_MAX = 10_000
QUIET_BEATS = 3
"""A comment goes out with every third heartbeat of the replica, 15 s apart: less than what proxies take for dead."""
INACTIVITY_SECONDS = 120
RETRY_MS = 1_000
RETRY_AFTER_SECONDS = 5.0
COMMENT = b":\n\n"

_encode = msgspec.json.Encoder().encode


class EventStreams:
    """`GET /ofrep/v1/events?grant=...`, and where a bulk answer sends its reader.

    `public_url` is how clients reach this service; without one they take the origin that they already ask.
    """

    def __init__(
        self,
        replicas: Replicas,
        verifier: Verifier,
        clock: Clock,
        public_url: str | None = None,
        streams_max: int = STREAMS_MAX,
    ) -> None:
        self._replicas = replicas
        self._verifier = verifier
        self._clock = clock
        self._origin = None if public_url is None else public_url.rstrip("/")
        self._rights = Rights(verifier.holder, clock)
        self._frames: dict[str, tuple[wire.Revision, bytes]] = {}
        self._streams_max = streams_max
        self.open_count = 0

    def offered(self, token: str, environment: str) -> bytes:
        """The `eventStreams` of a bulk answer to this token's holder, in JSON. It changes every hour."""
        _, identity, secret = token.split("_")
        grant = grants.sign(digest(secret), identity, environment, self._slot())
        where = f"{PATH}?{urlencode({'grant': grant})}"
        place = {"endpoint": {"requestUri": where}} if self._origin is None else {"url": self._origin + where}
        return _encode([{"type": "sse", **place, "inactivityDelaySec": INACTIVITY_SECONDS}])

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write events until the reader leaves or its token is revoked. Raises `Problem` before the first byte only."""
        identity, environment = await self._admit(scope)
        replica = await self._replicas.get(environment)
        if self.open_count >= self._streams_max:
            detail = f"{self._streams_max} event streams are open here: poll instead."
            raise Problem(503, Code.UNAVAILABLE, "Too many streams", detail, retry_after=RETRY_AFTER_SECONDS)
        subscription = replica.subscribe()
        self.open_count += 1
        self._rights.watch(identity, subscription)
        leaving = asyncio.create_task(until_gone(receive, subscription), name="flagd.ofrep.leaving")
        notices = _Notices(self, replica)
        try:
            await pour(subscription, notices.first(gate.text_header(scope, b"last-event-id")), notices.frame_of, send)
        finally:
            leaving.cancel()
            replica.leave(subscription)
            self._rights.unwatch(identity, subscription)
            self.open_count -= 1

    def frame(self, replica: Replica) -> bytes:
        """The event of the present revision, encoded once however many read."""
        kept = self._frames.get(replica.environment)
        if kept is None or kept[0] != replica.revision:
            revision = replica.revision
            data = _encode({"type": "refetchEvaluation", "etag": str(revision)})
            kept = self._frames[replica.environment] = (
                revision,
                f"event: message\nid: {revision}\ndata: ".encode() + data + b"\n\n",
            )
        return kept[1]

    async def _admit(self, scope: Scope) -> tuple[str, str]:
        """The id of the token that the grant hangs on, and its environment. Raises `Problem`."""
        if scope["method"] != "GET":
            raise gate.wrong_method("GET")
        query: bytes = scope["query_string"]
        grant = grants.read(parse_qs(query.decode("latin-1")).get("grant", [""])[0])
        if grant is None:
            raise _refused("There is no grant in the request.")
        principal, secret_hash = await self._verifier.holder(grant.token_id)
        if not grants.is_good(grant, secret_hash, self._slot()):
            raise _refused("The grant has run out, or is none of ours.")
        principal.require(SCOPE, grant.environment)
        return grant.token_id, grant.environment

    def _slot(self) -> int:
        return grants.slot_of(self._clock.now().timestamp())


class _Notices:
    """What one stream is sent: each revision once, the newest only, and a sign of life in between."""

    def __init__(self, streams: EventStreams, replica: Replica) -> None:
        self._streams = streams
        self._replica = replica
        self._sent = replica.revision
        self._beats = 0

    def first(self, last_id: str | None) -> bytes:
        """At the beginning."""
        retry = f"retry: {RETRY_MS}\n\n".encode()
        return retry if last_id == str(self._sent) else retry + self._streams.frame(self._replica)

    def frame_of(self, event: Event) -> bytes | None:
        """After an event of the replica."""
        if self._replica.revision > self._sent:
            self._sent = self._replica.revision
            return self._streams.frame(self._replica)
        self._beats += event.kind == "heartbeat"
        return COMMENT if event.kind == "heartbeat" and self._beats % QUIET_BEATS == 0 else None


def _refused(detail: str) -> Problem:
    step = "Ask for a bulk evaluation: its answer names a stream that can be read."
    return Problem(401, Code.UNAUTHENTICATED, "Not authenticated", detail, next_step=step)
