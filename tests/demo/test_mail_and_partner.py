"""The mail server over SMTP, and the partner that checks signatures."""

from __future__ import annotations

import asyncio
import smtplib
from datetime import UTC, datetime
from email.message import EmailMessage

import httpx
import pytest
from standardwebhooks import Webhook

from tests.demo.world import SECRET


def mail(message_id: str | None) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "shop@example.test"
    message["To"] = "customer-00001@example.test"
    message["Subject"] = "Your order 0001"
    message["X-Order"] = "0001"
    if message_id:
        message["Message-ID"] = message_id
    message.set_content("Thank you — it is on its way.")
    return message


def send(port: int, message: EmailMessage) -> None:
    with smtplib.SMTP("127.0.0.1", port) as smtp:
        smtp.send_message(message)


async def test_a_mail_is_kept_as_it_was_sent(mail_ports: dict[str, int]) -> None:
    await asyncio.to_thread(send, mail_ports["smtp"], mail("<one@example.test>"))
    async with httpx.AsyncClient(trust_env=False) as client:
        kept = (await client.get(f"http://127.0.0.1:{mail_ports['http']}/ledger")).json()["mails"]
    assert len(kept) == 1
    assert (kept[0]["message_id"], kept[0]["to"]) == ("<one@example.test>", "customer-00001@example.test")
    assert (kept[0]["headers"]["x-order"], kept[0]["body"].strip()) == ("0001", "Thank you — it is on its way.")


async def test_a_mail_without_a_message_id_is_refused(mail_ports: dict[str, int]) -> None:
    with pytest.raises(smtplib.SMTPDataError):
        await asyncio.to_thread(send, mail_ports["smtp"], mail(None))


async def test_a_notice_is_taken_only_with_a_signature_that_holds(partner_url: str) -> None:
    body = '{"retracts": "e1"}'
    now = datetime.now(tz=UTC)
    headers = {
        "webhook-id": "n1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("n1", now, body),
    }
    async with httpx.AsyncClient(base_url=partner_url, trust_env=False) as client:
        assert (await client.post("/retractions", content=body, headers=headers)).status_code == 202
        assert (await client.post("/retractions", content=body + " ", headers=headers)).status_code == 401
        ledger = (await client.get("/ledger")).json()
    assert [each["fault"] for each in ledger["retractions"]] == [None, "no signature matches"]


async def test_a_delivery_is_kept_with_its_id(partner_url: str) -> None:
    async with httpx.AsyncClient(base_url=partner_url, trust_env=False) as client:
        await client.post("/deliveries", json={"order_id": "0001"}, headers={"webhook-id": "e1"})
        ledger = (await client.get("/ledger")).json()
    assert [(each["webhook_id"], each["body"]) for each in ledger["deliveries"]] == [("e1", {"order_id": "0001"})]
