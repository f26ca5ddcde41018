"""What a server answers, and the errors that its refusals and silences become."""

from __future__ import annotations

from typing import Any

import msgspec

from rescind.errors import ApiError, Unreachable
from rescind.wire import ProblemBody

PASSING_RETRY_SECONDS_MAX = 300.0
AGE_DIGITS_MAX = 10


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A reply below 400: status, lower-case headers, body as it came."""

    status: int
    headers: dict[str, str]
    content: bytes


def answer_of(response: Any) -> Answer:
    """The answer of an httpx response that has been read. Raises `ApiError` from 400 on."""
    if response.status_code >= 400:
        raise problem_of(response.status_code, response.content, response.headers.get("retry-after"))
    return Answer(status=response.status_code, headers=dict(response.headers), content=response.content)


def problem_of(status: int, content: bytes, retry_after: str | None) -> ApiError:
    """The refusal as an error, whatever its body is (RFC 9457 where it comes from us, anything from a proxy)."""
    try:
        body = msgspec.json.decode(content, type=ProblemBody)
    except msgspec.MsgspecError:
        body = ProblemBody(status=status, code="http", detail=content[:200].decode("utf-8", "replace"))
    return ApiError(
        status,
        body.code,
        body.detail,
        title=body.title,
        errors=body.errors,
        suggestion=body.suggestion,
        next_step=body.next_step,
        retry_after_seconds=seconds_of(retry_after),
    )


def seconds_of(retry_after: str | None) -> float | None:
    """Retry-After in its form as seconds (RFC 9110, 10.2.3), at most five minutes; None for anything else."""
    if not retry_after or not retry_after.strip().isdecimal():
        return None
    return min(float(retry_after.strip()), PASSING_RETRY_SECONDS_MAX)


def unreachable(url: str, error: BaseException) -> Unreachable:
    """What to raise when the network said `error`."""
    return Unreachable(f"{url} could not be reached: {type(error).__name__} {error}".rstrip(": "))


def age_of(headers: dict[str, str]) -> float:
    """`Age` (RFC 9111, 5.1): how many seconds ago the server last knew that its answer was the newest; 0 if it says nothing."""
    age = headers.get("age", "")
    return float(age) if age.isdecimal() and len(age) < AGE_DIGITS_MAX else 0.0
