"""What every drive of a coordinator shares."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from runtime.clock import Clock, Entropy
from runtime.postgres import Postgres
from sagas.catalogue import Catalogue
from sagas.claims import Claims
from sagas.dispatch import Dispatcher
from sagas.drain import Drain
from sagas.enumeration import NO_WORKER_SECONDS, Enumeration
from sagas.leases import Leases

POLL_SECONDS = 0.5


class Tools(Struct, frozen=True, kw_only=True):
    """The parts of one coordinator, and how long it waits."""

    pg: Postgres
    clock: Clock
    entropy: Entropy
    leases: Leases
    catalogue: Catalogue
    enumeration: Enumeration
    claims: Claims
    dispatcher: Dispatcher
    drain: Drain
    actor: str
    on_due: Callable[[], None]
    """Compensations have become due: whoever waits for some looks at once."""
    poll_seconds: float = POLL_SECONDS
    no_worker_seconds: float = NO_WORKER_SECONDS
