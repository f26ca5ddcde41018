"""Sends correction mails over SMTP, at most once each (P13, hazard 17).

The Message-ID is `<{compensation id}@rescind>`, the same for every attempt, so that whoever reads the mailbox can tell. Up to
the final dot an error proves that nothing was sent; from there on a lost reply is in doubt, and a person decides. Connections
to a host are kept and used one mail at a time.

Source: RFC 5321 (section 4.5.3.2.6: the reply to the final dot), RFC 5322.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as POLICY
from email.utils import format_datetime

import aiosmtplib
import jinja2

from runtime.clock import Clock
from sagas.connections import SmtpConnection, resolve
from sagas.definitions import Email
from sagas.definitions.templates import render
from sagas.executors.outcomes import LOST, Context, Done, Doubt, NotYet, Outcome, Refused, told

IDLE_MAX = 16
Key = tuple[str, int, str | None]
PROVEN = (aiosmtplib.SMTPException, OSError, TimeoutError)


class EmailExecutor:
    """One per process; keeps idle connections per mail host."""

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        self._environ = environ
        self._clock = clock
        self._idle: dict[Key, deque[aiosmtplib.SMTP]] = {}

    async def execute(self, context: Context) -> Outcome:
        """Send the mail."""
        connection = context.connection
        if not isinstance(connection, SmtpConnection):
            return Refused(reason="the connection is not one to a mail host")
        try:
            message = self._message(context, connection)
            data = message.as_bytes(policy=POLICY)
        except (jinja2.TemplateError, ValueError, TypeError, LookupError) as error:
            return Refused(reason=f"the mail cannot be written: {told(error)}")
        try:
            async with asyncio.timeout(context.timeout_seconds):
                server = await self._envelope(connection, message)
        except aiosmtplib.SMTPResponseException as error:
            return _refusal(error)
        except (LookupError, *PROVEN) as error:
            return NotYet(error=told(error))
        return await self._send(context, connection, server, data)

    async def close(self) -> None:
        """Close every idle connection."""
        for idle in self._idle.values():
            for server in idle:
                server.close()
        self._idle.clear()

    async def _send(self, context: Context, connection: SmtpConnection, server: aiosmtplib.SMTP, data: bytes) -> Outcome:
        if not context.may_act():
            server.close()
            return LOST
        try:
            async with asyncio.timeout(context.timeout_seconds):
                response = await server.data(data)
        except aiosmtplib.SMTPDataError as error:
            server.close()
            return _refusal(error)
        except PROVEN as error:
            server.close()
            return Doubt(evidence={"error": told(error), "message_id": _message_id(context), "host": connection.host})
        idle = self._idle.setdefault(_key(connection), deque())
        if len(idle) < IDLE_MAX:
            idle.append(server)
        else:
            server.close()
        return Done(proof={"message_id": _message_id(context), "reply": f"{response.code} {response.message}"[:500]})

    async def _envelope(self, connection: SmtpConnection, message: EmailMessage) -> aiosmtplib.SMTP:
        """A connection that has accepted sender and recipients. One that had gone stale is replaced."""
        idle = self._idle.get(_key(connection))
        while idle:
            server = idle.pop()
            try:
                return await self._address(server, connection, message)
            except (aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPTimeoutError, OSError):
                server.close()
        return await self._address(await self._connect(connection), connection, message)

    async def _address(self, server: aiosmtplib.SMTP, connection: SmtpConnection, message: EmailMessage) -> aiosmtplib.SMTP:
        try:
            await server.mail(connection.sender)
            for address in message["To"].addresses:
                await server.rcpt(address.addr_spec)
        except BaseException:
            server.close()
            raise
        return server

    async def _connect(self, connection: SmtpConnection) -> aiosmtplib.SMTP:
        secret = None
        if connection.secret is not None:
            secret = await asyncio.to_thread(resolve, connection.secret, self._environ)
        server = aiosmtplib.SMTP(
            hostname=connection.host,
            port=connection.port,
            username=connection.username,
            password=secret,
            use_tls=connection.tls,
            start_tls=connection.start_tls,
        )
        await server.connect()
        return server

    def _message(self, context: Context, connection: SmtpConnection) -> EmailMessage:
        assert isinstance(context.executor, Email)
        names = context.names()
        message = EmailMessage()
        message["From"] = connection.sender
        message["To"] = [_address(text) for text in render(context.executor.to, names).split(",")]
        message["Subject"] = " ".join(render(context.executor.subject, names).split())
        message["Date"] = format_datetime(self._clock.now())
        message["Message-ID"] = _message_id(context)
        message["Auto-Submitted"] = "auto-generated"
        message["X-Rescind-Rollback"] = str(context.rollback_id)
        message.set_content(render(context.executor.body, names))
        return message


def _address(text: str) -> Address:
    """One recipient. Raises `ValueError` for what is none, line breaks above all."""
    return Address(addr_spec=text.strip())


def _message_id(context: Context) -> str:
    return f"<{context.compensation_id}@rescind>"


def _key(connection: SmtpConnection) -> Key:
    return (connection.host, connection.port, connection.username)


def _refusal(error: aiosmtplib.SMTPResponseException) -> Outcome:
    """A reply that says no: 4xx for now, 5xx for good (RFC 5321, section 4.2.1)."""
    if 400 <= error.code < 500:
        return NotYet(error=told(error))
    return Refused(reason=f"the mail host said {error.code}", evidence={"error": told(error)})
