"""W3C baggage: `rescind.rev` first among its members, for hops that know OpenTelemetry and not us (P3).

https://www.w3.org/TR/baggage/: at most 64 members and 8192 bytes have to be passed on. What others put there stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote_plus

from rescind.wire import BAGGAGE_KEY

BAGGAGE = "baggage"
MEMBERS_MAX = 64
BYTES_MAX = 8192
VALUES_MAX = 4
DECODINGS_MAX = 4


def with_revision(existing: str, value: str) -> str:
    """The baggage with `value` as its first member, in the place of an earlier one; without it where there is no room.

    >>> with_revision("tenant=blue", "production.1.42")
    'rescind.rev=production.1.42,tenant=blue'
    """
    others = without_revision(existing)
    member = f"{BAGGAGE_KEY}={value}"
    if not others.strip():
        return member
    whole = f"{member},{others}"
    fits = others.count(",") + 1 < MEMBERS_MAX and len(whole.encode()) <= BYTES_MAX
    return whole if fits else others


def without_revision(existing: str) -> str:
    """The baggage without our member, the others untouched.

    >>> without_revision("a=1, rescind.rev=production.1.42;p=1,b=2")
    'a=1,b=2'
    """
    if BAGGAGE_KEY not in existing and "%" not in existing and BAGGAGE_KEY not in existing.lower():
        return existing
    return ",".join(member for member in existing.split(",") if not is_ours(member))


def revisions_in(values: Iterable[str | bytes]) -> list[str]:
    """What `rescind.rev` is said to be: four values at most, found in the first 64 members and 8192 bytes."""
    found: list[str] = []
    members, left = 0, BYTES_MAX
    for value in values:
        text = (value[:left].decode("latin-1") if isinstance(value, bytes) else value[:left]) if left > 0 else ""
        left -= len(text) + 1
        if BAGGAGE_KEY not in text:
            members += text.count(",") + 1
        else:
            for member in text.split(","):
                members += 1
                name, _, rest = member.partition("=")
                if name.strip() == BAGGAGE_KEY and members <= MEMBERS_MAX and len(found) < VALUES_MAX:
                    found.append(unquote_plus(rest.partition(";")[0].strip()))
        if left <= 0 or members >= MEMBERS_MAX:
            break
    return found


def is_ours(member: str) -> bool:
    """Whether a member is called `rescind.rev`, or may become so on its way: a propagator that reads decodes the name, and one
    that writes does not encode it again. What is encoded more often than anyone does counts as ours."""
    name = member.partition("=")[0]
    for _ in range(DECODINGS_MAX):
        decoded = unquote_plus(name)
        if decoded == name:
            return name.strip().lower() == BAGGAGE_KEY
        name = decoded
    return True
