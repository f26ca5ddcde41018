"""The address of the servers: passes each request to one of them, and keeps what was acknowledged.

What a server answered counts as acknowledged, although whoever asked may have died before it came.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import httpx
import msgspec

from load.chaos.history import Reported, Started, Told

CONNECT_SECONDS = 1.0
READ_SECONDS = 20.0
NOT_PASSED = (b"host", b"content-length", b"connection", b"transfer-encoding")


class Acknowledged:
    """What was answered."""

    def __init__(self) -> None:
        self.started: list[Started] = []
        self.reported: list[Reported] = []
        self.told: list[Told] = []

    def hear(self, path: str, asked: bytes, answered: bytes) -> None:
        """One exchange that ended well."""
        name, saga = path.rpartition("/")[2], path.split("/")[-2]
        if name == "instances:start":
            asks, answers = msgspec.json.decode(asked)["instances"], msgspec.json.decode(answered)["results"]
            pairs = zip(asks, answers, strict=True)
            self.started += [Started(saga=saga, id=one["id"]) for one, said in pairs if said["outcome"] == "started"]
        elif name == "tasks:report":
            asks, answers = msgspec.json.decode(asked)["reports"], msgspec.json.decode(answered)["results"]
            self.reported += [
                Reported(id=one["id"], verb=one.get("verb", "undo"), outcome=one["outcome"], at=time.time(), token=one["token"])
                for one, said in zip(asks, answers, strict=True)
                if said == "recorded"
            ]
        elif name == "instances:await":
            ended = msgspec.json.decode(answered)["ended"]
            self.told += [Told(saga=saga, id=one["id"], state=one["state"]) for one in ended]


class Gate:
    """A bare ASGI application in front of `targets`, the URLs of servers."""

    def __init__(self) -> None:
        self.acknowledged = Acknowledged()
        self.targets: dict[int, str] = {}
        self._turns = itertools.count()
        timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        self._http = httpx.AsyncClient(timeout=timeout, trust_env=False, limits=httpx.Limits(max_connections=500))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request; given up when whoever asked is gone."""
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        body += message.get("body", b"")
        passing = asyncio.ensure_future(self._pass(scope, body, send))
        gone = asyncio.ensure_future(_gone(receive))
        await asyncio.wait((passing, gone), return_when=asyncio.FIRST_COMPLETED)
        for one in (passing, gone):
            one.cancel()
        await asyncio.gather(passing, gone, return_exceptions=True)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def _pass(self, scope: Any, body: bytes, send: Any) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name not in NOT_PASSED]
        for _ in range(2 * max(1, len(self.targets))):
            try:
                await self._stream(scope, headers, body, send)
            except httpx.ConnectError:
                continue
            except httpx.HTTPError:
                break
            return
        await send({"type": "http.response.start", "status": 502, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def _stream(self, scope: Any, headers: Any, body: bytes, send: Any) -> None:
        targets = [url for _, url in sorted(self.targets.items())]
        url = targets[next(self._turns) % len(targets)] + scope["raw_path"].decode()
        query = scope["query_string"].decode()
        async with self._http.stream(
            scope["method"], f"{url}?{query}" if query else url, headers=headers, content=body
        ) as answer:
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                content = await answer.aread()
                if answer.status_code == 200:
                    self.acknowledged.hear(scope["path"], body, content)
            kept = [pair for pair in answer.headers.raw if pair[0].lower() not in (*NOT_PASSED, b"content-encoding")]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
            try:
                if answer.is_stream_consumed:
                    await send({"type": "http.response.body", "body": content})
                    return
                async for part in answer.aiter_bytes():
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            except httpx.HTTPError:
                pass  # the server died in the middle of a stream: so does the stream
            await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
