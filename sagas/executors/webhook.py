"""Delivers retractions to partners as signed webhooks (Standard Webhooks 1.0.0).

`webhook-id` is the compensation's id, the same for every attempt: it is what the receiver recognises a repeat by. Only the
connection's own hosts are reached, no redirect is followed, and bodies are small.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx
import jinja2
import msgspec
from standardwebhooks.webhooks import Webhook as Signer

from runtime.clock import Clock
from sagas.connections import WebhookConnection, resolve
from sagas.definitions import Webhook
from sagas.definitions.templates import render
from sagas.executors.lines import Lines
from sagas.executors.outcomes import LOST, Context, Done, Doubt, NotYet, Outcome, Refused, told

BODY_BYTES_MAX = 65_536
REPLY_BYTES_MAX = 65_536
CALL_SECONDS = 600.0
"""More than any step may ask for: its own time-out is what counts."""
NOT_DONE = frozenset({425, 429, 503})
MAYBE_DONE = frozenset({408, 409})


class WebhookExecutor:
    """One per process."""

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        self._environ = environ
        self._clock = clock
        self._lines = Lines(CALL_SECONDS)

    async def execute(self, context: Context) -> Outcome:
        """Post the notice."""
        connection = context.connection
        if not isinstance(connection, WebhookConnection):
            return Refused(reason="the connection is not one to a webhook host")
        try:
            url, body = _target(context, connection), _body(context)
            headers = await self._headers(context, connection, body)
        except LookupError as error:
            return NotYet(error=told(error))
        except (jinja2.TemplateError, ValueError, TypeError) as error:
            return Refused(reason=f"the webhook cannot be written: {told(error)}")
        if not context.may_act():
            return LOST
        try:
            async with asyncio.timeout(context.timeout_seconds):
                with self._lines.one() as client:
                    async with client.stream("POST", url, content=body, headers=headers) as reply:
                        return _outcome(reply, await _start_of(reply))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return NotYet(error=told(error))
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            return Doubt(evidence={"error": told(error), "url": url})

    async def close(self) -> None:
        """Close every connection."""
        await self._lines.close()

    async def _headers(self, context: Context, connection: WebhookConnection, body: str) -> dict[str, str]:
        now = self._clock.now()
        identity = str(context.compensation_id)
        headers = {"content-type": "application/json", "webhook-id": identity, "webhook-timestamp": str(int(now.timestamp()))}
        if connection.secret is not None:
            secret = await asyncio.to_thread(resolve, connection.secret, self._environ)
            headers["webhook-signature"] = Signer(secret).sign(identity, now, body)
        return headers


def _target(context: Context, connection: WebhookConnection) -> str:
    """The address to post to. Raises `ValueError` for any host but the connection's own."""
    assert isinstance(context.executor, Webhook)
    path = render(context.executor.path, context.names())
    url = connection.url if not path else connection.url.rstrip("/") + "/" + path.lstrip("/")
    host, own = urlsplit(url).hostname, urlsplit(connection.url).hostname
    if host is None or (host not in connection.allow_hosts if connection.allow_hosts else host != own):
        raise ValueError(f"the connection does not allow the host {host!r}")
    return url


def _body(context: Context) -> str:
    """The JSON to post. Raises `ValueError` for what is not JSON or too large."""
    assert isinstance(context.executor, Webhook)
    if context.executor.body is None:
        body = msgspec.json.encode(context.effects[0].payload).decode()
    else:
        body = render(context.executor.body, context.names())
        try:
            msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise ValueError(f"the body is not JSON: {error}") from None
    if len(body.encode()) > BODY_BYTES_MAX:
        raise ValueError(f"a body is at most {BODY_BYTES_MAX} bytes")
    return body


async def _start_of(reply: httpx.Response) -> str:
    read = b""
    async for part in reply.aiter_bytes():
        read += part
        if len(read) >= REPLY_BYTES_MAX:
            break
    return read[:500].decode(errors="replace")


def _outcome(reply: httpx.Response, text: str) -> Outcome:
    evidence = {"http_status": reply.status_code, "reply": text}
    if reply.is_success:
        return Done(proof=evidence)
    if reply.status_code in NOT_DONE:
        after = reply.headers.get("retry-after", "")
        return NotYet(error=f"HTTP {reply.status_code}", retry_after_seconds=float(after) if after.isdecimal() else None)
    if reply.status_code >= 500 or reply.status_code in MAYBE_DONE:
        return Doubt(evidence=evidence)
    return Refused(reason=f"HTTP {reply.status_code}", evidence=evidence)
