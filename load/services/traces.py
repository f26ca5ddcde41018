"""What one request saw, hop by hop, and whether it was mixed: it saw a revision, then evaluated at an older one (P3). Pure.

"Then" is Lamport's order ("Time, Clocks, and the Ordering of Events in a Distributed System", 1978): later in the same hop, in
a called service after the call, or in the caller after it took in the reply. Two calls under way at once are in no order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct
from rescind.wire import Revision

STALE = "STALE"


class Route(Struct, frozen=True, kw_only=True):
    """Where a request goes: a service, and from there on."""

    service: str
    then: tuple[Route, ...] = ()
    at_once: bool = False
    """The calls are made at the same time, otherwise one after another."""


class Look(Struct, frozen=True, kw_only=True):
    """One evaluation: its answer, and the revision that it was made at."""

    revision: Revision
    value: bool
    reason: str


class Hop(Struct, frozen=True, kw_only=True):
    """What a service saw for one request: before its calls, and after each."""

    service: str
    instance: int
    looks: tuple[Look, ...]
    """One more than there were calls; two where these were made at once."""
    calls: tuple[Hop, ...] = ()
    at_once: bool = False
    added_ms: float | None = None
    """How long it waited for what the request had seen before it was served; null where it was not behind."""


CHAIN = Route(service="a", then=(Route(service="b", then=(Route(service="c"),)),))
IN_TURN = Route(service="a", then=(Route(service="b"), Route(service="c")))
BACK = Route(service="b", then=(Route(service="c", then=(Route(service="a"),)),))
AT_ONCE = Route(service="b", then=(Route(service="a"), Route(service="c")), at_once=True)
ROUTES = (CHAIN, IN_TURN, BACK, AT_ONCE)


class Older(Struct, frozen=True, kw_only=True):
    """An evaluation at an older revision than one that the request had seen by then."""

    seen: Look
    look: Look

    @property
    def is_turned(self) -> bool:
        """It gave another value: new, then old."""
        return self.seen.value != self.look.value


def mixed(hop: Hop) -> list[Older]:
    """The evaluations of a request at an older revision than it had seen by then; empty where it was not mixed.

    An off variant with reason STALE is no evaluation at a revision: it says that it is not.
    """
    return _walk(hop, None)[1]


def looks_of(hop: Hop) -> Iterator[Look]:
    """Every evaluation of a request."""
    for one in hops_of(hop):
        yield from one.looks


def hops_of(hop: Hop) -> Iterator[Hop]:
    """Every hop of a request."""
    yield hop
    for call in hop.calls:
        yield from hops_of(call)


def is_stale(hop: Hop) -> bool:
    """Whether a request was served an off variant because an instance could not catch up."""
    return any(look.reason == STALE for look in looks_of(hop))


def values_at(hops: Iterable[Hop]) -> dict[Revision, set[bool]]:
    """What was answered at each revision: one value, in whichever service (P1, P7)."""
    found: dict[Revision, set[bool]] = {}
    for hop in hops:
        for look in looks_of(hop):
            if look.reason != STALE:
                found.setdefault(look.revision, set()).add(look.value)
    return found


def _walk(hop: Hop, seen: Look | None) -> tuple[Look | None, list[Older]]:
    """The latest that was seen when the hop's reply was taken in, and what was older than what had been seen."""
    first, *after = hop.looks
    seen, older = _judged(first, seen, [])
    if hop.at_once:
        walked = [_walk(call, seen) for call in hop.calls]
        for last, found in walked:
            seen, older = _later(seen, last), [*older, *found]
        return _judged(after[-1], seen, older)
    for call, look in zip(hop.calls, after, strict=True):
        seen, found = _walk(call, seen)
        seen, older = _judged(look, seen, [*older, *found])
    return seen, older


def _judged(look: Look, seen: Look | None, older: list[Older]) -> tuple[Look | None, list[Older]]:
    if look.reason == STALE:
        return seen, older
    if seen is not None and look.revision < seen.revision:
        return seen, [*older, Older(seen=seen, look=look)]
    return look, older


def _later(one: Look | None, other: Look | None) -> Look | None:
    return max((look for look in (one, other) if look is not None), key=lambda look: look.revision, default=None)
