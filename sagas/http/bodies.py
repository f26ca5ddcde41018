"""Bodies in and out of this wing: JSON, or MessagePack for whoever asks; and what every handler reads of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response
from rescind.wire import Fault

from runtime.bodies import body_of
from runtime.errors import Code
from runtime.problem import Problem, fault_of
from runtime.storable import nul_faults

MESSAGEPACK = "application/msgpack"
BODY_BYTES_MAX = 8 * 1024 * 1024
REASON_MAX = 2_000
LIMIT_MAX = 1_000

AnyRequest = Request[Any, Any, Any]
T = TypeVar("T")


async def read(request: AnyRequest, kind: type[T]) -> T:
    """The body as `kind`. Raises `Problem` 400 for what is no JSON (or MessagePack), 413, and 422 with the pointer."""
    body = await body_of(request)
    if len(body) > BODY_BYTES_MAX:
        raise Problem(413, Code.TOO_LARGE, "Too large", f"A body has at most {BODY_BYTES_MAX} bytes.")
    is_packed = (request.headers.get("content-type") or "").partition(";")[0].strip().lower() == MESSAGEPACK
    try:
        return msgspec.msgpack.decode(body, type=kind) if is_packed else msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Problem(422, Code.INVALID, "Not acceptable as it is", str(error), [fault_of(error)]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Problem(400, Code.INVALID, "Malformed", f"The body cannot be read: {detail}.") from None


async def read_document(request: AnyRequest, *wrappers: str) -> tuple[dict[str, Any], str | None]:
    """A document and the reason of its writer: bare with `?reason=`, or as `{"<wrapper>": {...}, "reason": "..."}`."""
    body = await read(request, dict[str, Any])
    if faults := nul_faults(body, await body_of(request)):
        raise refused([Fault(pointer=one.pointer, code=one.code, detail=one.detail) for one in faults])
    for wrapper in wrappers:
        if isinstance(body.get(wrapper), dict) and not body.keys() - {wrapper, "reason"}:
            return body[wrapper], reason_of(body.get("reason", request.query_params.get("reason")))
    return body, reason_of(request.query_params.get("reason"))


def reason_of(reason: object) -> str | None:
    """A reason as it was given. Raises `Problem` 422."""
    if reason is None:
        return None
    if not isinstance(reason, str) or len(reason) > REASON_MAX or "\0" in reason:
        raise refused([Fault(pointer="/reason", detail=f"is not a text of at most {REASON_MAX} characters")])
    return reason


def answer(request: AnyRequest, value: object, status: int = 200) -> Response[bytes]:
    """The value, in the form that was asked for."""
    if MESSAGEPACK in request.headers.get("accept", ""):
        return Response(msgspec.msgpack.encode(value), status_code=status, media_type=MESSAGEPACK)
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")


def refused(faults: Sequence[Fault], title: str = "The document has faults") -> Problem:
    """422 with every fault."""
    count = len(faults)
    detail = faults[0].detail if count == 1 else f"{count} faults, each with its pointer in `errors`"
    return Problem(422, Code.INVALID, title, detail, faults)


async def read_checked(request: AnyRequest, kind: type[T]) -> T:
    """The body as `kind`, of what people write: raises as `read` does, and `Problem` 422 for what cannot be stored."""
    value = await read(request, kind)
    if faults := nul_faults(msgspec.to_builtins(value), await body_of(request)):
        raise refused([Fault(pointer=one.pointer, code=one.code, detail=one.detail) for one in faults])
    return value
