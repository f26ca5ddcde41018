"""The bytes of a request's body, for handlers behind the framework."""

from __future__ import annotations

from typing import Any

from litestar import Request
from litestar.exceptions import InternalServerException

from runtime.errors import Code
from runtime.problem import Problem


async def body_of(request: Request[Any, Any, Any]) -> bytes:
    """The whole body. Raises `Problem` 400, which nobody hears, where the caller has gone: that is no fault of the server.

    A body may be read late: who asks is looked up in PostgreSQL first, and callers lose patience while that is away.
    """
    try:
        return await request.body()
    except InternalServerException:  # the framework's word for `http.disconnect`, and for nothing else here
        raise Problem(400, Code.INVALID, "The request ended early") from None
