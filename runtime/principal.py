"""Who is asking, what they may do, and how their token is read from a request."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from msgspec import Struct

from runtime.errors import Code
from runtime.problem import Problem

ADMIN = "admin"


class Principal(Struct, frozen=True, kw_only=True):
    """Who is asking. Without an environment it is every one."""

    id: str
    name: str
    environment: str | None
    scopes: frozenset[str]

    def allows(self, scope: str, environment: str | None = None) -> bool:
        """Whether it may: `kill` covers `kill:checkout`, `admin` covers all; an act on no environment needs the scope alone."""
        if environment is not None and self.environment is not None and self.environment != environment:
            return False
        return scope in self.scopes or not self.scopes.isdisjoint((scope, scope.partition(":")[0], ADMIN))

    def require(self, scope: str, environment: str | None = None) -> None:
        """Raise a 403 `Problem` that names what is missing, unless it `allows`."""
        if self.allows(scope, environment):
            return
        where = f" in {environment!r}" if environment else ""
        bound = f", and is bound to {self.environment!r}" if self.environment else ""
        raise Problem(
            403,
            Code.FORBIDDEN,
            "Not allowed with this token",
            f"This needs the scope {scope!r}{where}; token {self.name!r} has {', '.join(sorted(self.scopes))}{bound}.",
            next_step="Ask someone with an admin token: rescind token create --help.",
        )


def digest(text: str) -> bytes:
    """Return what is kept of a secret."""
    return hashlib.sha256(text.encode()).digest()


def bearer(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the token of an ASGI request: `Authorization: Bearer ...`, else `X-API-Key` (OFREP)."""
    key: str | None = None
    for name, value in headers:
        if name == b"authorization":
            if value[:7].lower() == b"bearer ":
                return value[7:].decode("latin-1").strip()
        elif name == b"x-api-key":
            key = value.decode("latin-1").strip()
    return key
