"""OFREP's endpoints: two that are answered from the compiled snapshot, and the event stream.

The hot path: token from memory, one look-up, one call, one kept answer; no lock, no I/O, nothing awaited but the body.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct
from rescind import wire

from flagd.http import gate
from flagd.http.gate import Receive, Scope, Send
from flagd.http.ofrep import bulk
from flagd.http.ofrep.answers import Answer, Answers, Failure, encode, failed
from flagd.http.ofrep.events import PATH as EVENTS
from flagd.http.ofrep.events import EventStreams
from flagd.replica import Replica, Replicas
from runtime.errors import Code, Unavailable
from runtime.problem import Problem, problem_of, suggest
from runtime.tokens import Principal, Verifier, bearer

ROOT = "/ofrep/v1/"
PATH = "/ofrep/v1/evaluate/flags"
PREFIX = PATH + "/"
SCOPE = "evaluate"
SUGGESTIONS_MAX = 2_000
BUDGET_SECONDS = 0.25
"""How long a request that has seen a later revision waits for it."""


class Request(Struct, frozen=True):
    """`context` with its targeting key, which has to be a text where it is given."""

    context: dict[str, Any]


_read = msgspec.json.Decoder(Request).decode


class OfrepApp:
    """`POST /ofrep/v1/evaluate/flags[/{key}]`. The token names the environment; an admin's names it in a header."""

    def __init__(self, replicas: Replicas, verifier: Verifier, events: EventStreams) -> None:
        self._replicas = replicas
        self._verifier = verifier
        self._events = events
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
                await self._events.serve(scope, receive, send)
                return
            status, headers, body = await (self._single(key, scope, receive) if key else self._bulk(scope, receive))
        except Exception as error:  # the boundary: whatever happens becomes an answer
            await _refuse(send, problem_of(error), key)
            return
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _single(self, key: str, scope: Scope, receive: Receive) -> Answer:
        principal = self._known(scope) or await self._asker(scope)
        environment = principal.environment or _named(scope, principal)
        replica = self._replicas.held(environment) or await self._replicas.get(environment)
        answers = self._answers_of(replica)
        message = await receive()
        body = gate.whole_body(message)
        context, failure = _context(await gate.read_body(scope, receive, message) if body is None else body, key)
        if failure is not None:
            return answers.whole(replica, 400, encode(failure))
        if key not in replica.snapshot.flags:
            return answers.whole(replica, 404, encode(failed("FLAG_NOT_FOUND", _not_found(key, replica), key)))
        return answers.one(replica, key, context)

    async def _bulk(self, scope: Scope, receive: Receive) -> Answer:
        if scope["path"] not in (PATH, PREFIX):
            raise Problem(404, Code.NOT_FOUND, "Not found", "There is nothing here.")
        principal = self._known(scope) or await self._asker(scope)
        environment = principal.environment or _named(scope, principal)
        replica = await self._replicas.get(environment)
        answers = self._answers_of(replica)
        context, failure = _context(await gate.read_body(scope, receive, await receive()), "")
        if failure is not None:
            return answers.whole(replica, 400, encode(failure))
        await self._reach(replica, scope)
        await answers.prepare(replica, context)
        asked = gate.text_header(scope, b"if-none-match") or ""
        streams = self._events.offered(bearer(scope["headers"]) or "", environment)
        return bulk.answer(replica, answers, principal, context, streams, asked)

    def _known(self, scope: Scope) -> Principal | None:
        """Who asks, if that was known a moment ago and they may: without waiting."""
        token = bearer(scope["headers"]) if scope["method"] == "POST" else None
        principal = None if token is None else self._verifier.cached(token)
        return principal if principal is not None and principal.allows(SCOPE, principal.environment) else None

    async def _asker(self, scope: Scope) -> Principal:
        """Who asks. Raises `Problem` where they may not."""
        if scope["method"] != "POST":
            raise gate.wrong_method("POST")
        principal = await gate.authenticate(self._verifier, bearer(scope["headers"]))
        principal.require(SCOPE, principal.environment)
        return principal

    async def _reach(self, replica: Replica, scope: Scope) -> None:
        """`flagConfigEtag` asks for at least this revision, `flagConfigLastModified` for a look that begins now (hazard 19).

        Both are hints from outside: one that is absurd costs a shared look, in a budget, and changes nothing. Raises
        `Unavailable` where a later revision may exist and cannot be had now: an older answer would undo what was heard.
        """
        query: bytes = scope["query_string"]
        if not query:
            return
        asked = parse_qs(query.decode("latin-1"))
        at_least = _revision(asked.get("flagConfigEtag", [""])[0])
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

    def _answers_of(self, replica: Replica) -> Answers:
        answers = self._answers.get(replica.environment)
        if answers is None:
            answers = self._answers[replica.environment] = Answers(replica.environment)
        return answers


def _context(body: bytes, key: str) -> tuple[dict[str, Any], Failure | None]:
    try:
        context = _read(body).context
    except msgspec.ValidationError as error:
        return {}, failed("INVALID_CONTEXT", str(error), key)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}, failed("PARSE_ERROR", "The body is not JSON, or nested too deeply.", key)
    if not isinstance(context.get("targetingKey", ""), str):
        return {}, failed("INVALID_CONTEXT", "targetingKey is not a text", key)
    return context, None


def _revision(text: str) -> wire.Revision | None:
    try:
        return wire.Revision.parse(text.strip().strip('"'))
    except ValueError:
        return None


def _named(scope: Scope, principal: Principal) -> str:
    named = gate.text_header(scope, b"x-rescind-environment")
    if named:
        return named
    detail = f"Token {principal.name} is for every environment: name one in the header X-Rescind-Environment."
    raise Problem(400, "environment_missing", "No environment", detail)


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
