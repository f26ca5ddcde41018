"""Who may ask, and for which flags: an answer that is no is a gRPC status with a sentence.

Released providers can send no token, so a listener on loopback, or behind mutual TLS, serves whoever reaches it; any other
asks for a bearer token in the metadata. A token that is sent is always held to.

what is wrong                      status
no token, or none of ours          UNAUTHENTICATED
a token for something else         PERMISSION_DENIED
a selector of another flag set     NOT_FOUND
a selector that is none            INVALID_ARGUMENT
no snapshot, or a server stopping  UNAVAILABLE
too many streams, a slow reader    RESOURCE_EXHAUSTED
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from grpc import StatusCode, aio
from msgspec import Struct

from flagd.replica import Replica, Replicas
from runtime.problem import problem_of
from runtime.verifier import Verifier

SCOPES = ("evaluate", "read")
SELECTORS = ("flag-selector", "flagd-selector")
"""The header in its newer and its older spelling; either wins over the request's own field."""
FLAG_SET = "flagSetId"

Context = aio.ServicerContext[Any, Any]
Method = Callable[[Any, Context], Awaitable[Any]]
_STATUSES = {
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.UNAVAILABLE,  # the environment that this listener serves is not there (yet)
    503: StatusCode.UNAVAILABLE,
}


class Refusal(Exception):  # noqa: N818 - named for what it is
    """What a call is answered instead of a message."""

    def __init__(self, status: StatusCode, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Admitted(Struct, frozen=True):
    """Whose flags a call sees, and the token that it showed."""

    replica: Replica
    token: str | None


class Gate:
    """The gate of one listener: one environment, open to whoever reaches it or to bearers of a token."""

    def __init__(self, replicas: Replicas, verifier: Verifier, environment: str, *, is_open: bool) -> None:
        self._replicas = replicas
        self.verifier = verifier
        self.environment = environment
        self._is_open = is_open

    async def admit(self, context: Context, selector: str = "") -> Admitted:
        """Let a call pass. Raises `Refusal`, `Problem` or `Unavailable`."""
        metadata = {str(name): value for name, value in context.invocation_metadata() or ()}
        token = metadata.get("authorization")
        if token is not None or not self._is_open:
            principal = await self.verifier.verify(None if token is None else str(token))
            if not any(principal.allows(scope, self.environment) for scope in SCOPES):
                principal.require(SCOPES[0], self.environment)
        asked = next((str(metadata[name]) for name in SELECTORS if metadata.get(name)), selector)
        self._require_named(asked)
        replica = self._replicas.held(self.environment) or await self._replicas.get(self.environment)
        return Admitted(replica, None if token is None else str(token))

    def _require_named(self, selector: str) -> None:
        if selector in ("", f"{FLAG_SET}={self.environment}"):
            return
        name, equals, value = selector.partition("=")
        if equals and name == FLAG_SET:
            detail = f"this listener serves the flag set {self.environment!r}, not {value!r:.80}"
            raise Refusal(StatusCode.NOT_FOUND, detail)
        detail = f"a selector is {FLAG_SET}=<environment>, not {selector!r:.80}"
        raise Refusal(StatusCode.INVALID_ARGUMENT, detail)


def guarded(method: Method) -> Method:
    """The method, whose exceptions become statuses: the boundary."""

    async def call(request: Any, context: Context) -> Any:
        try:
            return await method(request, context)
        except aio.BaseError:  # the client has left, or it is answered already
            raise
        except Refusal as refusal:
            status, detail = refusal.status, refusal.detail
        except Exception as error:  # whatever happens becomes an answer
            problem = problem_of(error)
            status = _STATUSES.get(problem.status, StatusCode.INTERNAL)
            detail = f"{problem.title}: {problem.detail}"
        return await context.abort(status, detail)

    return call
