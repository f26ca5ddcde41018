"""Bearer tokens: what they are, who may do what with one, and how they are made and revoked.

A token reads `rsc_<id>_<secret>`. The id is public; of the secret, 256 bits of chance, only its SHA-256 is kept: a slow hash
protects weak secrets, and this is none. `Verifier` checks them at every entry point.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from runtime.clock import Entropy
from runtime.errors import Code
from runtime.postgres import Connection
from runtime.principal import ADMIN, Principal, bearer, digest
from runtime.problem import Fault, Problem
from runtime.queries import Queries
from runtime.verifier import Verifier

__all__ = [
    "ADMIN",
    "Principal",
    "Token",
    "Verifier",
    "bearer",
    "create",
    "digest",
    "listing",
    "principal_of",
    "revoke",
    "seconds_left",
]
QUERIES = Queries.load("runtime", "tokens")
SCOPES = (
    "read, evaluate, effects, work:<saga>, define:<saga>, kill[:<flag>], lift[:<flag>], release[:<name>], compensate, admin"
)
SCOPE = re.compile(
    r"read|evaluate|effects|compensate|admin|(work|define|kill|lift|release)(:[A-Za-z0-9][A-Za-z0-9._-]{0,254})?"
)


class Token(Struct, frozen=True, kw_only=True):
    """A token as it is listed: everything but the secret."""

    id: str
    name: str
    environment: str | None
    scopes: list[str]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


async def create(
    connection: Connection,
    name: str,
    environment: str | None,
    scopes: Sequence[str],
    created_by: str,
    expires_at: datetime | None = None,
    entropy: Entropy | None = None,
) -> tuple[str, str]:
    """Make a token and return (its text, its id): the text is never to be had again.

    Raises a 422 `Problem` for unknown scopes, for `admin` bound to one environment, and for anything less bound to none.
    """
    faults = [
        Fault(pointer=f"/scopes/{index}", detail=f"{scope!r:.80} is not a scope: {SCOPES}", code="unknown_scope")
        for index, scope in enumerate(scopes)
        if not SCOPE.fullmatch(scope)
    ]
    if not scopes:
        faults.append(Fault(pointer="/scopes", detail="at least one scope"))
    if ADMIN not in scopes and environment is None:
        detail = "a token is bound to one environment; only an admin token is for every one"
        faults.append(Fault(pointer="/environment", detail=detail, code="unbound"))
    if ADMIN in scopes and environment is not None:
        faults.append(Fault(pointer="/environment", detail="an admin token is for every environment"))
    if faults:
        raise Problem(422, Code.INVALID, "Not a token that can be made", faults[0].detail, faults)
    chance = entropy or Entropy()
    identity, secret = chance.token_bytes(8).hex(), chance.token_bytes(32).hex()
    await connection.execute(
        QUERIES.create_token, identity, name, digest(secret), environment, sorted(set(scopes)), created_by, expires_at
    )
    return f"rsc_{identity}_{secret}", identity


async def revoke(connection: Connection, id: str) -> datetime | None:  # noqa: A002 - the column's name
    """Revoke a token, which holds everywhere within a second. Return since when it is revoked, nothing if unknown."""
    revoked_at: datetime | None = await connection.fetchval(QUERIES.revoke_token, id)
    return revoked_at


async def seconds_left(connection: Connection, id: str) -> float:  # noqa: A002 - the column's name
    """Return how long the token is good from now: infinity for one that does not expire, 0 for one that is not good at all."""
    row = await connection.fetchrow(QUERIES.seconds_left, id)
    if row is None:
        return 0.0
    return math.inf if row["seconds"] is None else float(row["seconds"])


async def principal_of(connection: Connection, id: str) -> Principal | None:  # noqa: A002 - the column's name
    """Return who it is and what they may do now; None for a token that is not good any more."""
    row = await connection.fetchrow(QUERIES.live_tokens, [id])
    if row is None:
        return None
    return Principal(id=row["id"], name=row["name"], environment=row["environment"], scopes=frozenset(row["scopes"]))


async def listing(connection: Connection) -> list[Token]:
    """Return every token, oldest first, the revoked ones too."""
    return [Token(**dict(row)) for row in await connection.fetch(QUERIES.listing)]
