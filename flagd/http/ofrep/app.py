"""OFREP's endpoints: two that are answered from the compiled snapshot, and the event stream.

The hot path: token from memory, one look-up, one call, one kept answer; no lock, no I/O, nothing awaited but the body.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct
from rescind import wire

from flagd.http import gate
from flagd.http.gate import Header, Receive, Scope, Send
from flagd.http.ofrep import bulk
from flagd.http.ofrep.answers import Answers, Failure, encode
from flagd.http.ofrep.events import PATH as EVENTS
from flagd.http.ofrep.events import EventStreams
from flagd.replica import Replica, Replicas
from runtime.clock import Clock
from runtime.errors import Code, Unavailable
from runtime.problem import Problem, problem_of, suggest
from runtime.tokens import Principal, Verifier, bearer

ROOT = "/ofrep/v1/"
PATH = "/ofrep/v1/evaluate/flags"
PREFIX = PATH + "/"
SCOPE = "evaluate"
REVISION = wire.HEADER.encode()
SUGGESTIONS_MAX = 2_000
BUDGET_SECONDS = 0.25
"""How long a request that has seen a later revision waits for it: after that it is answered with what is had."""


class Request(Struct, frozen=True):
    """`context` with its targeting key, which has to be a text where it is given."""

    context: dict[str, Any]


_read = msgspec.json.Decoder(Request).decode


class OfrepApp:
    """`POST /ofrep/v1/evaluate/flags[/{key}]`. The token names the environment; an admin's names it in a header."""

    def __init__(
        self, replicas: Replicas, verifier: Verifier, clock: Clock | None = None, public_url: str | None = None
    ) -> None:
        self._replicas = replicas
        self._verifier = verifier
        self.events = EventStreams(replicas, verifier, clock or Clock(), public_url)
        self._answers: dict[str, Answers] = {}

    @staticmethod
    def matches(path: str) -> bool:
        """Whether this application answers the path."""
        return path.startswith(ROOT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        key = path[len(PREFIX) :] if path.startswith(PREFIX) else ""
        try:
            if path == EVENTS:
                await self.events.serve(scope, receive, send)
                return
            status, body, headers = await (self._single(key, scope, receive) if key else self._bulk(scope, receive))
        except Exception as error:  # the boundary: whatever happens becomes an answer
            await _refuse(send, problem_of(error), key)
        else:
            await gate.reply(send, status, body, *headers)

    async def _single(self, key: str, scope: Scope, receive: Receive) -> tuple[int, bytes, list[Header]]:
        _, replica = await self._admit(scope)
        context, failure = _context(await gate.read_body(scope, receive), key)
        if failure is not None:
            status, body = 400, encode(failure)
        elif key not in replica.snapshot.flags:
            status, body = 404, encode(Failure("FLAG_NOT_FOUND", _not_found(key, replica), key))
        else:
            status, body = self._of(replica).one(replica, key, context)
        return status, body, [gate.JSON, _revision(replica)]

    async def _bulk(self, scope: Scope, receive: Receive) -> tuple[int, bytes, list[Header]]:
        if scope["path"] not in (PATH, PREFIX):
            raise Problem(404, Code.NOT_FOUND, "Not found", "There is nothing here.")
        principal, replica = await self._admit(scope)
        context, failure = _context(await gate.read_body(scope, receive), "")
        if failure is not None:
            return 400, encode(failure), [gate.JSON, _revision(replica)]
        await self._reach(replica, scope)
        asked = gate.text_header(scope, b"if-none-match") or ""
        streams = self.events.offered(bearer(scope["headers"]) or "", replica.environment)
        status, body, headers = bulk.answer(replica, self._of(replica), principal, context, streams, asked)
        return status, body, [*headers, _revision(replica)]

    async def _admit(self, scope: Scope) -> tuple[Principal, Replica]:
        """Who asks, and the flags they may see. Raises `Problem`."""
        if scope["method"] != "POST":
            raise gate.wrong_method("POST")
        principal = await gate.authenticate(self._verifier, bearer(scope["headers"]))
        environment = principal.environment or _named(scope, principal)
        if not principal.allows(SCOPE, environment):
            principal.require(SCOPE, environment)
        return principal, self._replicas.held(environment) or await self._replicas.get(environment)

    async def _reach(self, replica: Replica, scope: Scope) -> None:
        """`flagConfigEtag` asks for at least this revision, `flagConfigLastModified` for a look that begins now (hazard 19).

        Both are hints from outside: one that is absurd costs a shared look, in a budget, and changes nothing. Raises
        `Unavailable` where a later revision may exist and cannot be had now: an older answer would undo what was heard.
        """
        query: bytes = scope["query_string"]
        if not query:
            return
        asked = parse_qs(query.decode("latin-1"))
        at_least = None
        with contextlib.suppress(ValueError):
            at_least = wire.Revision.parse(asked.get("flagConfigEtag", [""])[0].strip().strip('"'))
        if at_least is None and "flagConfigLastModified" not in asked:
            return
        if at_least is not None and at_least <= replica.revision:
            return
        try:
            async with asyncio.timeout(BUDGET_SECONDS):
                await asyncio.shield(self._replicas.refresh(replica.environment, at_least))
        except (Unavailable, TimeoutError):
            if at_least is not None and at_least > replica.revision:
                raise Unavailable("The revision that was asked for") from None

    def _of(self, replica: Replica) -> Answers:
        answers = self._answers.get(replica.environment)
        if answers is None:
            answers = self._answers[replica.environment] = Answers()
        return answers


def _context(body: bytes, key: str) -> tuple[dict[str, Any], Failure | None]:
    named = key or msgspec.UNSET
    try:
        context = _read(body).context
    except msgspec.ValidationError as error:
        return {}, Failure("INVALID_CONTEXT", str(error), named)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}, Failure("PARSE_ERROR", "The body is not JSON, or nested too deeply.", named)
    if not isinstance(context.get("targetingKey", ""), str):
        return {}, Failure("INVALID_CONTEXT", "targetingKey is not a text", named)
    return context, None


def _named(scope: Scope, principal: Principal) -> str:
    named = gate.text_header(scope, b"x-rescind-environment")
    if named:
        return named
    detail = f"Token {principal.name} is for every environment: name one in the header X-Rescind-Environment."
    raise Problem(400, "environment_missing", "No environment", detail)


def _revision(replica: Replica) -> Header:
    return REVISION, f"{replica.environment}.{replica.revision}".encode()


def _not_found(key: str, replica: Replica) -> str:
    flags = replica.snapshot.flags
    near = suggest(key[:255], list(flags)) if len(flags) <= SUGGESTIONS_MAX else None
    hint = f" Did you mean '{near}'?" if near else ""
    return f"Flag '{key[:255]}' was not found in environment {replica.environment}.{hint}"


async def _refuse(send: Send, problem: Problem, key: str) -> None:
    """A problem (RFC 9457) that has OFREP's own members as well: released clients read those of any refusal."""
    members: dict[str, Any] = msgspec.json.decode(problem.body())
    members |= {"errorCode": "GENERAL", "errorDetails": problem.detail or problem.title}
    if key:
        members["key"] = key
    headers = [(name.encode(), value.encode()) for name, value in problem.headers().items()]
    kind = b"application/json" if problem.status in (400, 500) else b"application/problem+json"
    await gate.reply(send, problem.status, encode(members), (b"content-type", kind), *headers)
