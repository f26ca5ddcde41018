"""Errors over HTTP: `application/problem+json` (RFC 9457), for Litestar and for the bare ASGI applications alike.

Every answer names a `code` that never changes; a refused document lists every fault with its JSON pointer (RFC 6901); an
unknown name comes with the nearest known one. What we did not foresee is a 500 without a traceback in it: that goes to the
log, a counter and the span.
"""

from __future__ import annotations

import difflib
import logging
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import asyncpg
import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, SerializationException, ValidationException
from msgspec import Struct
from opentelemetry import trace

from runtime.errors import Code, InRecovery, OutcomeUnknown, Unavailable
from runtime.telemetry import counter

CONTENT_TYPE = "application/problem+json"
SUGGESTION_CUTOFF = 0.6
LOGGED_MAX = 500

log = logging.getLogger("rescind.problem")
unstorable = counter("rescind.unstorable_inputs")
unforeseen = counter("rescind.unforeseen_errors")
_encoder = msgspec.json.Encoder()
_STEP = re.compile(r"\[(\d+|\.\.\.)\]|\.?([^.\[\]]+)")
_CODES = {
    400: Code.INVALID,
    401: Code.UNAUTHENTICATED,
    403: Code.FORBIDDEN,
    404: Code.NOT_FOUND,
    405: Code.METHOD_NOT_ALLOWED,
    413: Code.TOO_LARGE,
    415: Code.UNSUPPORTED_MEDIA_TYPE,
    422: Code.INVALID,
    503: Code.UNAVAILABLE,
}


UNSTORABLE = {
    "22000": "A number, an instant or a text in it is out of the range of what can be stored.",
    "22001": "A text in it is longer than what can be stored.",
    "22003": "A number in it is out of the range of what can be stored.",
    "22008": "An instant or a duration in it is out of the range of what can be stored.",
    "22021": "A text in it holds a NUL character, which cannot be stored.",
    "22P05": "A text in it holds a NUL character, which cannot be stored.",
    "54000": "A text in it is longer than what can be stored.",
}
"""PostgreSQL's refusals of a value (SQLSTATE) in words; 22000 is asyncpg's own, of a value that does not fit its type."""


class Fault(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fault of a refused document; `pointer` is a JSON pointer into it, empty for the whole."""

    pointer: str
    detail: str
    code: str = "invalid"


class Body(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is sent."""

    title: str
    status: int
    code: str
    detail: str = ""
    errors: Sequence[Any] = ()
    suggestion: str | None = None
    next_step: str | None = None


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """An answer that is an error. `errors` are `Fault`s or anything of the same shape.

    >>> Problem(404, "not_found", "Not found", "no flag 'chekout'", suggestion="checkout").body()
    b'{"title":"Not found","status":404,"code":"not_found","detail":"no flag \\'chekout\\'","suggestion":"checkout"}'
    """

    def __init__(
        self,
        status: int,
        code: str,
        title: str = "",
        detail: str = "",
        errors: Sequence[Any] = (),
        suggestion: str | None = None,
        next_step: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail or title}")
        self.status = status
        self.code = str(code)
        self.title = title or HTTPStatus(status).phrase
        self.detail = detail
        self.errors = tuple(errors)
        self.suggestion = suggestion
        self.next_step = next_step
        self.retry_after = retry_after

    def body(self) -> bytes:
        """Return the JSON that is sent."""
        return _encoder.encode(
            Body(
                title=self.title,
                status=self.status,
                code=self.code,
                detail=self.detail,
                errors=self.errors,
                suggestion=self.suggestion,
                next_step=self.next_step,
            )
        )

    def headers(self) -> dict[str, str]:
        """Return the headers that go with it, beside the content type."""
        headers = {"cache-control": "no-store"}
        if self.retry_after is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after)))
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers


def suggest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate nearest to `word`, if any is near.

    >>> suggest("chekout.new-flow", ["checkout.new-flow", "search.ranking"])
    'checkout.new-flow'
    """
    near = difflib.get_close_matches(word[:255], list(candidates), n=1, cutoff=SUGGESTION_CUTOFF)
    return near[0] if near else None


def pointer(path: str) -> str:
    """Return msgspec's path as a JSON pointer.

    >>> pointer("$.effects[0].key"), pointer("$"), pointer("$.flags[...].state")
    ('/effects/0/key', '', '/flags/*/state')
    """
    steps = [index or name for index, name in _STEP.findall(path.removeprefix("$"))]
    return "".join("/" + ("*" if step == "..." else step.replace("~", "~0").replace("/", "~1")) for step in steps)


def fault_of(error: msgspec.MsgspecError, prefix: str = "") -> Fault:
    """Return what msgspec found, with the pointer to it under `prefix`."""
    detail, at, path = str(error).rpartition(" - at `")
    if not at:
        return Fault(pointer=prefix, detail=str(error))
    return Fault(pointer=prefix + pointer(path.rstrip("`")), detail=detail)


def problem_of(error: Exception) -> Problem:
    """Return the problem that tells of this error. An unforeseen one is logged, counted and told without its text."""
    match error:
        case Problem():
            return error
        case Unavailable():
            return Problem(
                503,
                Code.IN_RECOVERY if isinstance(error, InRecovery) else Code.UNAVAILABLE,
                f"{error.what} is not available",
                "Nothing was done.",
                next_step="Try again after the seconds in Retry-After.",
                retry_after=error.retry_after_seconds,
            )
        case OutcomeUnknown():
            return Problem(
                503,
                Code.OUTCOME_UNKNOWN,
                "The outcome is not known",
                "The database's answer was lost; the change may stand or not.",
                next_step="Repeat the same request: whatever already stands is recognised.",
                retry_after=1,
            )
        case msgspec.ValidationError():
            return Problem(422, Code.INVALID, "Not acceptable as it is", str(error), [fault_of(error)])
        case msgspec.DecodeError():
            return Problem(400, Code.INVALID, "Malformed", str(error), [fault_of(error)])
        case asyncpg.DataError() | asyncpg.ProgramLimitExceededError() if error.sqlstate in UNSTORABLE:
            return _unstorable(error, UNSTORABLE[error.sqlstate])
        case HTTPException() if error.status_code < 500 or error.status_code == 503:
            return _of_litestar(error)
        case _:
            return _unforeseen(error)


def _of_litestar(error: HTTPException) -> Problem:
    cause = error.__cause__
    if isinstance(cause, SerializationException):
        cause = cause.__cause__
    if isinstance(cause, msgspec.DecodeError) and not isinstance(error, ValidationException):
        return problem_of(cause)
    status = error.status_code
    faults: list[Fault] = []
    if isinstance(error, ValidationException):
        items = error.extra if isinstance(error.extra, list) else []
        faults = [_of_item(item) for item in items if isinstance(item, Mapping)]
        if any(isinstance(item, Mapping) and item.get("source") == "body" for item in items):
            status = 422
    return Problem(status, _CODES.get(status, Code.INVALID), HTTPStatus(status).phrase, str(error.detail), faults)


def _of_item(item: Mapping[str, Any]) -> Fault:
    """Read one of Litestar's validation messages: of the body, or of a parameter by name."""
    key, detail = str(item.get("key", "")), str(item.get("message", ""))
    if item.get("source") == "body":
        return Fault(pointer=pointer("" if key == "data" else key), detail=detail)
    return Fault(pointer="", detail=f"parameter {key!r}: {detail}", code="invalid_parameter")


def _unstorable(error: Exception, detail: str) -> Problem:
    """What was sent cannot be stored, and was not found out before. Logged: a check with a place may be missing."""
    log.warning("refused by the database: %s", str(error)[:LOGGED_MAX])
    unstorable.add(1, {"type": type(error).__name__})
    return Problem(422, Code.INVALID, "Cannot be stored", detail, [Fault(pointer="", code="unstorable", detail=detail)])


def _unforeseen(error: Exception) -> Problem:
    log.error("unforeseen error", exc_info=error)
    unforeseen.add(1, {"type": type(error).__name__})
    trace.get_current_span().record_exception(error)
    return Problem(
        500, Code.INTERNAL, "Something went wrong here", "The server's log says what; it is not your request's fault."
    )


def _handle(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    problem = problem_of(error)
    headers = problem.headers()
    if isinstance(error, HTTPException) and error.headers:
        headers |= {name.lower(): value for name, value in error.headers.items() if name.lower() == "allow"}
    return Response(problem.body(), status_code=problem.status, media_type=CONTENT_TYPE, headers=headers)


litestar_handlers: dict[int | type[Exception], Callable[[Request[Any, Any, Any], Any], Response[Any]]] = {
    HTTPException: _handle,
    Exception: _handle,
}


async def send_problem(send: Callable[[Any], Awaitable[None]], error: Exception) -> None:
    """Answer a bare ASGI request with an error. The response must not have begun."""
    problem = problem_of(error)
    body = problem.body()
    headers = {"content-type": CONTENT_TYPE, "content-length": str(len(body)), **problem.headers()}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
