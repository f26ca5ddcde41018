"""`Idempotency-Key` for every write: a repeated request is answered, not done again.

After IETF draft-ietf-httpapi-idempotency-key-header.

Optional for the caller, a kill least of all needs it. Per token and key: the first request is carried out and its answer kept
for a day; while it runs, another is 409; with another payload it is 422; afterwards the kept answer is sent again, with
`idempotent-replayed: true`. A server error is not kept, so that it can be tried again. Whoever vanished in mid-request blocks
the key for a minute: what the request did is then repeated or recognised by the write itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from runtime.errors import Code, RuntimeFault
from runtime.postgres import Postgres
from runtime.principal import bearer
from runtime.problem import Problem, send_problem
from runtime.queries import Queries
from runtime.sealing import Ring
from runtime.verifier import Verifier

QUERIES = Queries.load("runtime", "requests")
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
KEY_LENGTH_MAX = 255
BODY_BYTES_MAX = 8 * 1024 * 1024
ANSWER_BYTES_MAX = 1024 * 1024
VANISHED_SECONDS = 60.0
KEPT_SECONDS = 86_400.0
PURGED_MAX = 1_000

log = logging.getLogger("rescind.idempotency")
Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Answer(Struct, frozen=True, kw_only=True):
    """What a request was answered."""

    status: int
    content_type: str
    body: bytes


class Attempt(Struct, frozen=True, kw_only=True):
    """The right to carry out one request, until it is finished or released."""

    token_id: str
    key: str
    begun_at: datetime


class Requests:
    """The requests that carried a key, in PostgreSQL."""

    def __init__(self, pg: Postgres) -> None:
        self._pg = pg

    async def begin(self, token_id: str, key: str, fingerprint: bytes) -> Attempt | Answer:
        """Return the right to carry the request out, or the answer it had. Raises `Problem` 409 and 422."""
        async with self._pg.connection() as connection:
            begun_at = await connection.fetchval(
                QUERIES.begin_request, token_id, key, fingerprint, VANISHED_SECONDS, KEPT_SECONDS
            )
            if begun_at is not None:
                return Attempt(token_id=token_id, key=key, begun_at=begun_at)
            held = await connection.fetchrow(QUERIES.held_request, token_id, key)
            ring: Ring = connection.ring
        if held is not None and held["fingerprint"] != fingerprint:
            raise Problem(
                422,
                Code.IDEMPOTENCY_KEY_REUSED,
                "This Idempotency-Key belongs to another request",
                next_step="Use a new key for a new request, and the same body for a repeated one.",
            )
        if held is None or held["status"] is None:
            raise Problem(
                409,
                Code.REQUEST_IN_PROGRESS,
                "A request with this Idempotency-Key is in progress",
                next_step="Repeat it in a moment.",
                retry_after=1,
            )
        body = ring.open_bytes(held["body"], _place(token_id, key))
        return Answer(status=held["status"], content_type=held["content_type"], body=body)

    async def finish(self, attempt: Attempt, answer: Answer) -> None:
        """Keep the answer."""
        async with self._pg.connection() as connection:
            identity = (attempt.token_id, attempt.key, attempt.begun_at)
            body = connection.ring.seal_bytes(answer.body, _place(attempt.token_id, attempt.key))
            await connection.execute(QUERIES.finish_request, *identity, answer.status, answer.content_type, body)

    async def release(self, attempt: Attempt) -> None:
        """Give the key back: nothing was done, or nothing worth keeping was answered."""
        async with self._pg.connection() as connection:
            await connection.execute(QUERIES.release_request, attempt.token_id, attempt.key, attempt.begun_at)

    async def purge(self) -> None:
        """Forget answers older than a day (`runtime.forgetting` calls it)."""
        more = True
        while more:
            async with self._pg.connection() as connection:
                more = len(await connection.fetch(QUERIES.purge_requests, KEPT_SECONDS, PURGED_MAX)) == PURGED_MAX


class IdempotencyMiddleware:
    """Wraps an ASGI application. Requests without the header, and reads, pass untouched."""

    def __init__(self, app: App, requests: Requests, verifier: Verifier) -> None:
        self._app = app
        self._requests = requests
        self._verifier = verifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = _key(scope)
        if key is None:
            await self._app(scope, receive, send)
            return
        try:
            principal = await self._verifier.verify(bearer(scope["headers"]))
            if not 0 < len(key) <= KEY_LENGTH_MAX or not key.isprintable():
                raise Problem(400, Code.INVALID, "Idempotency-Key is not usable", f"1 to {KEY_LENGTH_MAX} printable characters")
            body = await _read(receive)
            begun = await self._requests.begin(principal.id, key, _fingerprint(scope, body))
        except (Problem, RuntimeFault) as error:
            await send_problem(send, error)
            return
        if isinstance(begun, Answer):
            await _send(send, begun, replayed=True)
        else:
            await self._carry_out(begun, scope, body, receive, send)

    async def _carry_out(self, attempt: Attempt, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        sent: list[Message] = []

        async def collect(message: Message) -> None:
            sent.append(message)

        try:
            await self._app(scope, _replay(body, receive), collect)
        finally:
            answer = _answer(sent)
            await asyncio.shield(self._settle(attempt, answer))
        for message in sent:
            await send(message)

    async def _settle(self, attempt: Attempt, answer: Answer | None) -> None:
        """Keep the answer or give the key back. If that fails the answer is still the caller's."""
        try:
            if answer is None or answer.status >= 500 or len(answer.body) > ANSWER_BYTES_MAX:
                await self._requests.release(attempt)
            else:
                await self._requests.finish(attempt, answer)
        except RuntimeFault as error:
            log.warning("an answer could not be kept: %s", error)


def _place(token_id: str, key: str) -> str:
    """What a kept answer is sealed under."""
    return f"answer/{token_id}/{key}"


def _key(scope: Scope) -> str | None:
    """Return the header of a write, as it stands or as a structured field's string."""
    if scope["type"] != "http" or scope["method"] not in WRITES:
        return None
    for name, value in scope["headers"]:
        if name == b"idempotency-key":
            text: str = value.decode("latin-1").strip()
            return text[1:-1] if len(text) >= 2 and text[0] == text[-1] == '"' else text
    return None


def _fingerprint(scope: Scope, body: bytes) -> bytes:
    parts = (scope["method"].encode(), scope["path"].encode(), scope.get("query_string", b""), body)
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).digest()


async def _read(receive: Receive) -> bytes:
    """Return the whole body. Raises `Problem` 413 beyond `BODY_BYTES_MAX`."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, Code.INVALID, "The request ended early")
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            raise Problem(413, Code.TOO_LARGE, "The body is too large", f"At most {BODY_BYTES_MAX} bytes.")
        if not message.get("more_body"):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand the body on to the application, then whatever comes."""
    rest: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return rest.pop() if rest else await receive()

    return again


def _answer(sent: list[Message]) -> Answer | None:
    """Return the answer that the messages make up, nothing if it is not complete."""
    if len(sent) < 2 or sent[-1].get("more_body"):
        return None
    headers = {bytes(name).lower(): bytes(value) for name, value in sent[0].get("headers", ())}
    return Answer(
        status=sent[0]["status"],
        content_type=headers.get(b"content-type", b"").decode("latin-1"),
        body=b"".join(message.get("body", b"") for message in sent[1:]),
    )


async def _send(send: Send, answer: Answer, *, replayed: bool) -> None:
    headers = [
        (b"content-length", str(len(answer.body)).encode()),
        (b"idempotent-replayed", b"true" if replayed else b"false"),
    ]
    if answer.content_type:
        headers.append((b"content-type", answer.content_type.encode("latin-1")))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
