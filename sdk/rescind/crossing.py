"""What crosses between services, whichever way they talk: one place for all middleware, hooks and messages (P3).

Outgoing, the revision is put on a call or a message, as a header of its own and first in the baggage. A reply teaches the
caller. What comes in is caught up with, within the budget, and pinned. All of it is a hint: nothing here raises for what
others sent.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Coroutine, Iterable, MutableMapping
from typing import Any

from rescind.baggage import BAGGAGE, revisions_in, with_revision
from rescind.causality import BUDGET_SECONDS, CatchUp
from rescind.client import AsyncClient, Client
from rescind.context import Held, Pin
from rescind.errors import ConfigurationError
from rescind.header import header_value, read_header
from rescind.stream import CATCH_UP, REPLY
from rescind.wire import HEADER, Revision

Values = Iterable[str | bytes]

SLACK_SECONDS = 1.0
"""Beyond the budget, for a client that is closed meanwhile and answers nobody any more."""


class Crossing:
    """One client's side of it."""

    def __init__(self, client: Client | AsyncClient, *, budget_seconds: float = BUDGET_SECONDS) -> None:
        self.client = client
        self._core = client.core
        self._budget_seconds = budget_seconds

    # --- outgoing -----------------------------------------------------------------------------------------------------

    def carried(self) -> str | None:
        """The header's value for whatever this request, or this task, sends now. None where no revision is known yet."""
        return self._value(self._core.causality.carried())

    def put(self, headers: MutableMapping[str, str], baggage: str = "") -> None:
        """Put the revision on a call or a message; `baggage` is what is in that header already."""
        if (value := self.carried()) is not None:
            headers[HEADER] = value
            headers[BAGGAGE] = with_revision(baggage, value)

    def told(self, pin: Pin) -> str | None:
        """The header's value for a reply of the request that holds `pin`."""
        return self._value(pin.seen)

    # --- replies ------------------------------------------------------------------------------------------------------

    async def learn(self, values: Values) -> None:
        """Take in what a reply has seen: this request evaluates nothing older from here on."""
        if (seen := self._news(values)) is not None:
            self._learnt(seen, await self.catch_up(seen, REPLY))

    def learn_blocking(self, values: Values) -> None:
        """The same, in code without a loop."""
        if (seen := self._news(values)) is not None:
            self._learnt(seen, self._wait(seen, REPLY))

    # --- incoming -----------------------------------------------------------------------------------------------------

    async def begin(self, values: Values = (), baggage: Values = ()) -> Held:
        """A request or a message that carries these headers begins here."""
        seen = self._seen(values, baggage)
        return self._begin(seen, CatchUp.REACHED if seen is None else await self.catch_up(seen))

    def begin_blocking(self, values: Values = (), baggage: Values = ()) -> Held:
        """The same, in code without a loop."""
        seen = self._seen(values, baggage)
        return self._begin(seen, CatchUp.REACHED if seen is None else self._wait(seen))

    async def renew(self, pin: Pin) -> None:
        """A connection that stays open was told something."""
        late = pin.seen > self._core.current.revision
        self._core.causality.renew(pin, await self.catch_up(pin.seen) if late else CatchUp.REACHED)

    def end(self, held: Held) -> None:
        """What began is over."""
        self._core.causality.end(held)

    async def catch_up(self, seen: Revision, how: str = CATCH_UP) -> CatchUp:
        """Wait for `seen`, within the budget; `how` it was heard of: by a request, or a reply."""
        try:
            async with asyncio.timeout(self._budget_seconds + SLACK_SECONDS):
                return await self.client.on_core(self._core.causality.catch_up(seen, self._budget_seconds, how))
        except TimeoutError:
            return CatchUp.LATE

    # --- within -------------------------------------------------------------------------------------------------------

    def _begin(self, seen: Revision | None, outcome: CatchUp) -> Held:
        return self._core.causality.begin(None if outcome is CatchUp.UNKNOWN else seen, outcome)

    def _seen(self, values: Values, baggage: Values) -> Revision | None:
        """The later of what the header and the baggage say, if it is beyond this instance."""
        self.client.ensure_started()
        environment, current = self._core.api.environment, self._core.current.revision
        if not environment or not (values or baggage):
            return None
        found = (read_header(values, environment, current), read_header(revisions_in(baggage), environment, current))
        return max((one for one in found if one is not None and one > current), default=None)

    def _news(self, values: Values) -> Revision | None:
        environment = self._core.api.environment
        return self._core.causality.news(values, environment) if environment and values else None

    def _learnt(self, seen: Revision, outcome: CatchUp) -> None:
        self._core.causality.learn(self._core.context.pin.get(), seen, outcome)

    def _value(self, revision: Revision) -> str | None:
        environment = self._core.api.environment
        return header_value(environment, revision) if environment and revision.n else None

    def _wait(self, seen: Revision, how: str = CATCH_UP) -> CatchUp:
        """Where the client works on a loop that this very thread runs, nobody can be waited for: it counts as late."""
        work = self._core.causality.catch_up(seen, self._budget_seconds, how)
        try:
            if isinstance(self.client, AsyncClient):
                return wait_for_loop(self.client.home, work, self._budget_seconds + SLACK_SECONDS)
            return self.client.block_on_core(work, self._budget_seconds + SLACK_SECONDS)
        except (ConfigurationError, TimeoutError, concurrent.futures.TimeoutError):
            return CatchUp.LATE


def wait_for_loop(
    loop: asyncio.AbstractEventLoop | None, work: Coroutine[Any, Any, CatchUp], timeout_seconds: float
) -> CatchUp:
    """`work`, done on the loop of another thread. Late where it does not run, or is this thread's own."""
    if loop is None or not loop.is_running() or is_running_here(loop):
        work.close()
        return CatchUp.LATE
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result(timeout_seconds)
    except concurrent.futures.TimeoutError:
        future.cancel()
        raise


def is_running_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this very thread runs it."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
