"""requests' sessions that carry the revision on their calls and learn from the replies (P3).

    http = instrument(requests.Session(), client)

Use it for calls to your own services, not to the outside world. What is mounted later is wrapped by hand: `RescindAdapter`.
Beside an `AsyncClient` it learns from replies only outside of the loop's own thread.
"""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import BaseAdapter

from rescind.baggage import BAGGAGE
from rescind.causality import BUDGET_SECONDS
from rescind.client import AsyncClient, Client
from rescind.crossing import Crossing
from rescind.wire import HEADER


def instrument(
    session: requests.Session, client: Client | AsyncClient, *, budget_seconds: float = BUDGET_SECONDS
) -> requests.Session:
    """Wrap the adapters that are mounted on `session`, in their order, and return it."""
    for prefix, adapter in session.adapters.items():
        if not isinstance(adapter, RescindAdapter):
            session.adapters[prefix] = RescindAdapter(adapter, client, budget_seconds=budget_seconds)
    return session


class RescindAdapter(BaseAdapter):
    """Wraps the adapter that does the call: what comes before it, OpenTelemetry's instrumentation too, has had its say."""

    def __init__(self, adapter: BaseAdapter, client: Client | AsyncClient, *, budget_seconds: float = BUDGET_SECONDS) -> None:
        super().__init__()
        self._adapter = adapter
        self._crossing = Crossing(client, budget_seconds=budget_seconds)

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        """Do the call. Raises what the adapter raises."""
        self._crossing.put(request.headers, as_text(request.headers.get(BAGGAGE, "")))
        response = self._adapter.send(request, *arguments, **options)
        if value := response.headers.get(HEADER):
            self._crossing.learn_blocking([value])
        return response

    def close(self) -> None:
        """Close the adapter."""
        self._adapter.close()


def as_text(value: str | bytes) -> str:
    """requests lets headers be either."""
    return value.decode("latin-1") if isinstance(value, bytes) else value
