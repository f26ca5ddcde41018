"""One instance of a service: evaluates, calls the others, evaluates again, and answers with all that the request saw."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from rescind import AsyncClient

from load.services.traces import Hop, Look, Route

FLAG = "checkout.new-flow"
ARRIVED = "load.arrived"
"""In the scope of a request that had seen more than this instance: when it came, on the loop's clock."""

Call = Callable[[Route], Awaitable[Hop]]
_route = msgspec.json.Decoder(Route)


class Service:
    """An ASGI application: a route in, its hop out, both JSON. `call` takes a request on to the next service."""

    def __init__(self, name: str, instance: int, client: AsyncClient, call: Call) -> None:
        self._name = name
        self._instance = instance
        self._client = client
        self._call = call

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        begun, body = asyncio.get_running_loop().time(), b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body"):
                break
        else:
            return  # whoever asked has gone
        hop = await self._hop(_route.decode(body))
        if (arrived := scope.get(ARRIVED)) is not None:
            hop = msgspec.structs.replace(hop, added_ms=(begun - arrived) * 1000)
        content = msgspec.json.encode(hop)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _hop(self, route: Route) -> Hop:
        looks, calls = [self._look()], []
        if route.at_once:
            calls = await asyncio.gather(*(self._call(one) for one in route.then))
            looks.append(self._look())
        else:
            for one in route.then:
                calls.append(await self._call(one))
                looks.append(self._look())
        return Hop(service=self._name, instance=self._instance, looks=tuple(looks), calls=tuple(calls), at_once=route.at_once)

    def _look(self) -> Look:
        """An evaluation, at the revision of what answered it."""
        found = self._client.boolean_details(FLAG, False)
        memory = self._client.core.context.recall(FLAG)
        assert memory is not None
        return Look(revision=memory.evaluator.revision, value=found.value, reason=found.reason)
