"""A real SMTP server on loopback that keeps what it receives, and shows it at `GET /ledger`.

Run as `python -m demo.world.mail`: two free ports, `smtp` and `http`. The judge reads the ledger.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import time
from collections.abc import Callable
from typing import Any

import msgspec
from aiosmtpd.smtp import SMTP, Envelope, Session

from demo.asgi import App, Reply, Request, application, json_reply
from demo.serving import serve


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """One mail as it was received."""

    message_id: str
    sender: str
    to: str
    subject: str
    headers: dict[str, str]
    body: str
    received_at: float


class Mailbox:
    """Takes every mail and keeps it; refuses what has no Message-ID (a strict host would, too)."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 (aiosmtpd's name)
        """Called by aiosmtpd for each mail; the text is the SMTP answer."""
        content = envelope.content or b""
        message = email.message_from_bytes(
            content if isinstance(content, bytes) else content.encode(), policy=email.policy.default
        )
        if not message["Message-ID"]:
            return "554 5.6.0 A mail needs a Message-ID"
        body = message.get_body(("plain", "html"))
        for recipient in envelope.rcpt_tos:
            self.mails.append(
                Mail(
                    message_id=str(message["Message-ID"]),
                    sender=envelope.mail_from or "",
                    to=recipient,
                    subject=str(message["Subject"] or ""),
                    headers={name.lower(): str(value) for name, value in message.items()},
                    body=body.get_content() if body is not None else "",
                    received_at=time.time(),
                )
            )
        return "250 2.0.0 Kept"

    def app(self) -> App:
        """The ledger as an ASGI application."""

        async def handle(request: Request) -> Reply:
            match request.method, request.path:
                case "GET", "/ledger":
                    return json_reply({"mails": self.mails})
                case _:
                    return json_reply({"error": "no such path"}, 404)

        return application(handle)

    def protocol(self) -> Callable[[], Any]:
        """The factory of SMTP conversations for `loop.create_server`."""
        return lambda: SMTP(self, hostname="mail.demo.test", enable_SMTPUTF8=True)


async def run() -> None:
    """Serve mail and ledger until the parent goes."""
    mailbox = Mailbox()
    server = await asyncio.get_running_loop().create_server(mailbox.protocol(), "127.0.0.1", 0)
    try:
        await serve(mailbox.app(), smtp=server.sockets[0].getsockname()[1])
    finally:
        server.close()


if __name__ == "__main__":
    asyncio.run(run())
