"""What the three services of the shop have in common: the flag, one order's data, how they start, what they remember.

Each is an ASGI application in a process of its own that uses nothing of ours but the SDK. Addresses come from the environment,
as anywhere; `RESCIND_URL` and `RESCIND_TOKEN` are read by the client itself.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import msgspec
import rescind
import rescind.asgi
import rescind.httpx
from rescind.effects import EffectContext

from demo.asgi import Handler, Reply, Request, application, json_reply
from demo.release import FLAG, NEW, OLD, SAGA
from demo.serving import serve

CALL_TIMEOUT_SECONDS = 15.0
READY_SECONDS = 15.0
LEASE_SECONDS = 5.0
"""How long an effect may go on without a word of ours; the SDK extends it while the body runs."""
RETRY_AFTER_SECONDS = "0.2"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the shop is told of one order. `attempt` counts how often it was posted."""

    order_id: str
    customer: str
    email: str
    amount_cents: int
    attempt: int = 1


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """A body of an effect that this service began."""

    effect_id: str
    variant: str | None
    begun_at: float


class Shop:
    """One service's client, its ways to other services and to the world outside, and its own record of what it began."""

    def __init__(self, client: rescind.AsyncClient, inside: httpx.AsyncClient, outside: httpx.AsyncClient) -> None:
        self.client = client
        self.inside = inside
        self.outside = outside
        self.begun: list[Body] = []
        self.met: Counter[str] = Counter()

    def path(self, customer: str) -> str:
        """Which path this customer is on, by the flag."""
        return NEW if self.client.boolean(FLAG, False, {"targetingKey": customer}) else OLD

    def effect(
        self, kind: str, step: str, key: str, order: Order, payload: dict[str, Any], variant: str | None
    ) -> EffectContext:
        """An effect of this order. Its variant is that of the request's own evaluation, unless a kill said otherwise since."""
        return self.client.effect(
            kind,
            flag=FLAG,
            key=key,
            saga=(*SAGA, order.order_id),
            step=step,
            subject=order.customer,
            payload=payload,
            variant=variant,
            lease_seconds=LEASE_SECONDS,
        )

    def begin(self, effect: rescind.Effect) -> None:
        """Write down that a body begins, by this machine's clock."""
        self.begun.append(Body(effect_id=effect.id, variant=effect.variant, begun_at=time.time()))

    async def old_path_if_killed(self, path: str, act: Callable[[str, str | None], Awaitable[Any]]) -> tuple[str, Any]:
        """Act on a path; where a kill came in between, on the old path instead. Answers the path that was taken."""
        try:
            return path, await act(path, None)
        except (rescind.EffectKilled, rescind.EffectCompensated) as refusal:
            if path == OLD:
                raise
            self.met["killed"] += 1
            return OLD, await act(OLD, refusal.off_variant or rescind.wire.OFF)

    def handler(self, routes: dict[str, Callable[[Order], Awaitable[Any]]]) -> Handler:
        """Routes of orders, beside `GET /variant?customer=` and `GET /record`. Refusals become statuses that say what to do."""

        async def handle(request: Request) -> Reply:
            if request.method == "GET" and request.path == "/variant":
                return json_reply({"path": self.path(request.query.get("customer", ""))})
            if request.method == "GET" and request.path == "/record":
                return json_reply({"begun": self.begun, "met": self.met})
            route = routes.get(request.path)
            if route is None or request.method != "POST":
                return json_reply({"error": "no such path"}, 404)
            try:
                return json_reply(await route(msgspec.json.decode(request.body, type=Order)))
            except (rescind.EffectError, rescind.Unreachable, rescind.NotDone, httpx.HTTPError, OSError) as error:
                self.met[type(error).__name__] += 1
                status = 409 if isinstance(error, rescind.EffectInProgress) else 503
                return json_reply({"error": f"{type(error).__name__}: {error}"}, status, retry_after=RETRY_AFTER_SECONDS)

        return handle


def http_client() -> httpx.AsyncClient:
    """A client for calls on this machine."""
    return httpx.AsyncClient(timeout=CALL_TIMEOUT_SECONDS, trust_env=False)


async def run(name: str, routes: Callable[[Shop], dict[str, Callable[[Order], Awaitable[Any]]]]) -> None:
    """Serve one service until its parent goes."""
    async with rescind.AsyncClient(service=name) as client:
        await client.wait_ready(timeout_seconds=READY_SECONDS)
        async with http_client() as inside, http_client() as outside:
            shop = Shop(client, rescind.httpx.instrument(inside, client), outside)
            await serve(rescind.asgi.RescindMiddleware(application(shop.handler(routes(shop))), client))
