"""The right to read an event stream, in its URL: a browser's EventSource can send no header (docs/decisions/0012).

A grant names a token by its public id, and one environment. It is signed with the digest of the token's secret, which every
replica finds in PostgreSQL: there is no further key to keep. It opens streams for an hour or two, and only while its token is
good; the same token gets the same grant for an hour, so that a URL stays what it is.
"""

from __future__ import annotations

import hmac
import re
from urllib.parse import quote, unquote

from msgspec import Struct

SLOT_SECONDS = 3600
PURPOSE = "rescind ofrep events 1"
_TEXT = re.compile(r"([0-9a-f]{16})\.([0-9]{1,10})\.([0-9a-f]{64})\.([A-Za-z0-9_.~%-]{1,1000})")


class Grant(Struct, frozen=True, kw_only=True):
    """What the text says of itself: nothing of it is true before `is_good`."""

    token_id: str
    slot: int
    mac: str
    environment: str


def slot_of(seconds: float) -> int:
    """The hour, counted from 1970, that an instant is in."""
    return int(seconds) // SLOT_SECONDS


def sign(secret_hash: bytes, token_id: str, environment: str, slot: int) -> str:
    """The text of a grant; it needs no escaping in a query."""
    return f"{token_id}.{slot}.{_mac(secret_hash, token_id, environment, slot)}.{quote(environment, safe='')}"


def read(text: str) -> Grant | None:
    """The grant that a text is, if it is one."""
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    return Grant(token_id=match[1], slot=int(match[2]), mac=match[3], environment=unquote(match[4]))


def is_good(grant: Grant, secret_hash: bytes, slot: int) -> bool:
    """Whether the holder of the token signed it, this hour or the last. A peer's clock may be in the next hour already."""
    expected = _mac(secret_hash, grant.token_id, grant.environment, grant.slot)
    return abs(slot - grant.slot) <= 1 and hmac.compare_digest(expected, grant.mac)


def _mac(secret_hash: bytes, token_id: str, environment: str, slot: int) -> str:
    return hmac.digest(secret_hash, f"{PURPOSE}\n{token_id}\n{slot}\n{environment}".encode(), "sha256").hex()
