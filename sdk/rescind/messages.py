"""Messages between services: the revision in their headers, and one revision for what a consumer does with one (P3).

    producer.send("orders", body, headers=inject(client, {}))

    async with receiving(client, message.headers):
        ...

    @consumer(client, headers=lambda message: message.headers)
    def handle(message): ...

Headers are a mapping or, as Kafka has them, pairs. What cannot be caught up with in time gets off variants with reason STALE
for that message. `trust=False` for a queue that others write to: nothing is believed, and a mapping is rid of it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from itertools import islice
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from rescind.baggage import BAGGAGE, without_revision
from rescind.causality import BUDGET_SECONDS
from rescind.client import AsyncClient, Client
from rescind.context import Held
from rescind.crossing import Crossing
from rescind.wire import HEADER

P = ParamSpec("P")
T = TypeVar("T")

Headers = Mapping[str, Any] | Iterable[tuple[str, Any]]
Text = str | bytes

HEADERS_MAX = 128
"""So many of a message are looked at."""


def inject(client: Client | AsyncClient, headers: MutableMapping[str, str]) -> MutableMapping[str, str]:
    """Put the revision that the caller has seen into a message's headers, and return them."""
    baggage = next((name for name in headers if name.lower() == BAGGAGE), BAGGAGE)
    Crossing(client).put(headers, headers.get(baggage, ""))
    if baggage != BAGGAGE and BAGGAGE in headers:
        headers[baggage] = headers.pop(BAGGAGE)
    return headers


def strip(headers: MutableMapping[str, Any]) -> None:
    """Take away what says a revision, the member of the baggage too."""
    for name in [name for name in headers if name.lower() in (HEADER, BAGGAGE)]:
        value = headers.pop(name)
        if name.lower() == BAGGAGE and (left := without_revision(as_text(value))):
            headers[name] = left if isinstance(value, str) else left.encode("latin-1")


class receiving:  # noqa: N801 - a context manager, read as a verb
    """Around what a consumer does with one message: `with`, or `async with` on a loop.

    `with` waits up to the budget in the thread that it is used in. Beside an `AsyncClient` it does so only outside of the
    loop's own thread; within, what would have to be waited for gets off variants.
    """

    def __init__(
        self,
        client: Client | AsyncClient,
        headers: Headers | None,
        *,
        trust: bool = True,
        budget_seconds: float = BUDGET_SECONDS,
    ) -> None:
        self._crossing = Crossing(client, budget_seconds=budget_seconds)
        if not trust and isinstance(headers, MutableMapping):
            strip(headers)
        self._values, self._baggage = said(headers) if trust and headers else ([], [])
        self._held: Held | None = None

    def __enter__(self) -> None:
        self._held = self._crossing.begin_blocking(self._values, self._baggage)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._held is not None:
            self._crossing.end(self._held)

    async def __aenter__(self) -> None:
        self._held = await self._crossing.begin(self._values, self._baggage)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def consumer(
    client: Client | AsyncClient,
    *,
    headers: Callable[..., Headers | None],
    trust: bool = True,
    budget_seconds: float = BUDGET_SECONDS,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator for a function, or a coroutine function, that handles one message; `headers` takes what it takes."""

    def around(*arguments: Any, **named: Any) -> receiving:
        return receiving(client, headers(*arguments, **named), trust=trust, budget_seconds=budget_seconds)

    def decorate(handle: Callable[P, T]) -> Callable[P, T]:
        if inspect.iscoroutinefunction(handle):

            @functools.wraps(handle)
            async def handle_async(*arguments: P.args, **named: P.kwargs) -> Any:
                async with around(*arguments, **named):
                    return await handle(*arguments, **named)

            return cast(Callable[P, T], handle_async)

        @functools.wraps(handle)
        def handle_sync(*arguments: P.args, **named: P.kwargs) -> T:
            with around(*arguments, **named):
                return handle(*arguments, **named)

        return handle_sync

    return decorate


def said(headers: Headers) -> tuple[list[Text], list[Text]]:
    """The values of our header and of the baggage. Whatever is no text is passed over."""
    values: list[Text] = []
    baggage: list[Text] = []
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    for name, value in islice(pairs, HEADERS_MAX):
        if isinstance(value, (str, bytes)) and isinstance(name, (str, bytes)):
            lower = as_text(name).lower()
            if lower == HEADER:
                values.append(value)
            elif lower == BAGGAGE:
                baggage.append(value)
    return values, baggage


def as_text(value: Text) -> str:
    """Headers as they are on a wire."""
    return value.decode("latin-1") if isinstance(value, bytes) else value
