"""The world outside for the coordinator's tests: a payment provider, a mail host and a partner, real servers on free ports.

The provider honours idempotency keys and refuses over-refunds; each can be told how the next calls go wrong.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from email import message_from_bytes
from email.message import Message
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

from aiosmtpd.smtp import SMTP

SEARCH = re.compile(r"metadata\['(\w+)'\]:'([^']+)'")


class Http:
    """A small HTTP/1.1 server over asyncio streams. `fates` says how the next POSTs go, one each:

    ok, lost (done, reply lost), dropped (not done, connection closed), 500, 429, 400, hang.
    """

    def __init__(self) -> None:
        self.fates: list[str] = []
        self.posts: list[tuple[str, dict[str, str], str]] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.released = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while line := await reader.readline():
                method, target, _ = line.decode().split(" ", 2)
                headers = {}
                while (head := (await reader.readline()).decode().strip()) != "":
                    name, _, value = head.partition(":")
                    headers[name.lower()] = value.strip()
                body = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
                if not await self._reply(writer, method, target, headers, body):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _reply(self, writer: asyncio.StreamWriter, method: str, target: str, headers: dict[str, str], body: str) -> bool:
        fate = "ok"
        if method == "POST":
            self.posts.append((target, headers, body))
            fate = self.fates.pop(0) if self.fates else "ok"
        if fate == "dropped":
            return False
        if fate in ("500", "429", "400", "302"):
            status, answer = int(fate), {"error": {"type": "api_error", "message": fate}}
        else:
            status, answer = self.answer(method, target, headers, body)
        if fate == "lost":
            return False
        if fate == "hang":
            await self.released.wait()
        data = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n"
        head += "location: http://127.0.0.1:1/\r\n" if status == 302 else ""
        writer.write(head.encode() + b"\r\n" + data)
        await writer.drain()
        return True

    def answer(self, method: str, target: str, headers: dict[str, str], body: str) -> tuple[int, dict[str, Any]]:
        return 200, {"ok": True}


class Payments(Http):
    """Payment intents and refunds in Stripe's shape."""

    def __init__(self) -> None:
        super().__init__()
        self.intents: dict[str, dict[str, Any]] = {}
        self.refunds: list[dict[str, Any]] = []
        self.keys: dict[str, tuple[int, dict[str, Any]]] = {}
        self.names: dict[str, str] = {}
        """The refund's id by effect, where a test chooses it."""
        self.is_search_late = False
        self.listed = 0
        self._numbers = itertools.count(1)

    def capture(self, effect_id: object, amount: int, status: str = "succeeded") -> str:
        identity = f"pi_{next(self._numbers)}"
        self.intents[identity] = {
            "id": identity,
            "object": "payment_intent",
            "status": status,
            "amount": amount,
            "created": int(time.time()),
            "metadata": {"rescind_effect": str(effect_id)},
        }
        return identity

    def refunded(self, intent: str) -> int:
        return sum(refund["amount"] for refund in self.refunds if refund["payment_intent"] == intent)

    def give_back(self, intent: str, amount: int) -> None:
        """A refund by somebody else."""
        status, answer = self._refund({"payment_intent": intent, "amount": str(amount)})
        assert status == 200, answer

    def rename(self, old: str, new: str) -> None:
        """Give a refund another id, also in what is answered under its key."""
        for refund in self.refunds:
            refund["id"] = new if refund["id"] == old else refund["id"]

    def answer(self, method: str, target: str, headers: dict[str, str], body: str) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(target)
        if parts.path == "/v1/payment_intents/search":
            match = SEARCH.search(unquote_plus(parts.query))
            assert match is not None, parts.query
            indexed = [] if self.is_search_late else self.intents.values()
            found = [intent for intent in indexed if intent["metadata"].get(match[1]) == match[2]]
            return 200, {"object": "search_result", "data": found, "has_more": False}
        if method == "GET" and parts.path == "/v1/payment_intents":
            return 200, self._listed({name: values[0] for name, values in parse_qs(parts.query).items()})
        if method == "GET" and parts.path == "/v1/refunds":
            wanted = parse_qs(parts.query)["payment_intent"][0]
            found = [refund for refund in self.refunds if refund["payment_intent"] == wanted]
            return 200, {"object": "list", "data": found, "has_more": False, "url": "/v1/refunds"}
        assert (method, parts.path) == ("POST", "/v1/refunds"), (method, parts.path)
        key = headers["idempotency-key"]
        if key not in self.keys:
            self.keys[key] = self._refund({name: values[0] for name, values in parse_qs(body).items()})
        return self.keys[key]

    def _listed(self, query: dict[str, str]) -> dict[str, Any]:
        """Newest first, at once."""
        self.listed += 1
        found = [each for each in reversed(self.intents.values()) if each["created"] >= int(query["created[gte]"])]
        ids = [each["id"] for each in found]
        found = found[ids.index(query["starting_after"]) + 1 :] if "starting_after" in query else found
        limit = int(query["limit"])
        return {"object": "list", "data": found[:limit], "has_more": len(found) > limit, "url": "/v1/payment_intents"}

    def _refund(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        intent = self.intents.get(form["payment_intent"])
        if intent is None:
            return 404, {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "no such intent"}}
        left = intent["amount"] - self.refunded(intent["id"])
        if left <= 0:
            return 400, {"error": {"type": "invalid_request_error", "code": "charge_already_refunded", "message": "again"}}
        if int(form["amount"]) > left:
            return 400, {"error": {"type": "invalid_request_error", "message": "greater than what is left"}}
        metadata = {name[9:-1]: value for name, value in form.items() if name.startswith("metadata[")}
        refund = {
            "id": self.names.get(metadata.get("rescind_effect", "")) or f"re_{next(self._numbers)}",
            "object": "refund",
            "status": "succeeded",
            "amount": int(form["amount"]),
            "currency": "usd",
            "payment_intent": intent["id"],
            "metadata": metadata,
        }
        self.refunds.append(refund)
        return 200, refund


class Mail:
    """An SMTP server that keeps what it gets. `fates`, one per mail: ok, refused, later, lost (kept, the reply lost)."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.fates: list[str] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Transport] = set()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: SMTP(self, enable_SMTPUTF8=True, loop=loop, hostname="mail.test"), "127.0.0.1", self.port
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        fate = self.fates.pop(0) if self.fates else "ok"
        if fate == "refused":
            return "554 no"
        if fate == "later":
            return "451 later"
        self.mails.append(message_from_bytes(envelope.content))
        if fate == "lost":
            server.transport.close()
        return "250 kept"

    def ids(self) -> list[str]:
        return [str(mail["Message-ID"]) for mail in self.mails]
