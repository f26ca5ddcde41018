"""The declared executors against real servers outside: what they send, and how they read what goes wrong."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from sagas.connections import SmtpConnection, StripeConnection, WebhookConnection
from sagas.definitions import Compensation, Email, Refund, Webhook
from sagas.executors import Executors, sightings
from sagas.executors.outcomes import Absent, Context, Done, Doubt, Found, NotYet, Refused, Subject, Unknown
from tests.sagas.coordinator.world import World

HANG_SECONDS = 1.0
TIMEOUT_SECONDS = 5.0
"""No promise of speed: what hangs has a shorter one."""

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Bench:
    """Executors with a context to try them on."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.executors = Executors(world.clock, world.environ)
        self.effect = uuid.uuid4()
        self.compensation = uuid.uuid4()
        self.may_act = True
        self.timeout_seconds = TIMEOUT_SECONDS

    def context(self, executor: Compensation, connection: Any, **changes: Any) -> Context:
        payload = {"amount_cents": 1000, "to": "kim@example.com", "name": "Kim\r\nBcc: all@example.com"} | changes.pop(
            "payload", {}
        )
        subject = Subject(
            id=self.effect,
            kind="k",
            key="key:1",
            subject="c1",
            payload=payload,
            result=changes.pop("result", None),
            amount_minor=changes.pop("amount_minor", 1000),
            currency="USD",
        )
        fields: dict[str, Any] = {
            "compensation_id": self.compensation,
            "action_key": f"{self.effect}:refund",
            "executor": executor,
            "connection": connection,
            "effects": [subject],
            "rollback_id": uuid.UUID(int=7),
            "reason": "bad release",
            "incident": None,
            "attempt": 1,
            "doubtful": False,
            "timeout_seconds": self.timeout_seconds,
            "may_act": lambda: self.may_act,
        }
        return Context(**(fields | changes))

    def refund(self, **changes: Any) -> Context:
        url = changes.pop("url", self.world.payments.url)
        return self.context(Refund(connection="payments"), StripeConnection(url=url, secret="env:PAY"), **changes)

    def mail(self, *, port: int | None = None, **fields: Any) -> Context:
        texts = {"to": "{{ effect.payload.to }}", "subject": "Sorry", "body": "Dear {{ effect.payload.name }}"} | fields
        connection = SmtpConnection(host="127.0.0.1", port=port or self.world.mail.port, sender="shop@example.com")
        return self.context(Email(connection="mail", **texts), connection)

    def webhook(self, *, path: str = "/retract", body: str | None = None, **fields: Any) -> Context:
        connection = WebhookConnection(**({"url": self.world.partner.url, "secret": "env:SIGN"} | fields))
        return self.context(Webhook(connection="partner", path=path, body=body), connection)


@pytest.fixture
async def bench(world: World) -> Any:
    bench = Bench(world)
    yield bench
    await bench.executors.close()


async def test_a_refund_names_its_effect_and_asks_for_what_was_captured(bench: Bench) -> None:  # P13, P17
    intent = bench.world.payments.capture(bench.effect, 1000)
    outcome = await bench.executors.execute(bench.refund(result={"id": intent}))
    assert isinstance(outcome, Done)
    assert outcome.proof["amount"] == 1000
    refund = bench.world.payments.refunds[0]
    assert refund["metadata"]["rescind_effect"] == str(bench.effect)
    _, headers, _ = bench.world.payments.posts[0]
    assert headers["idempotency-key"] == f"{bench.effect}:refund"
    assert headers["authorization"] == "Bearer sk_test_1"


async def test_more_than_was_captured_is_never_given_back(bench: Bench) -> None:  # P17
    intent = bench.world.payments.capture(bench.effect, 400)
    outcome = await bench.executors.execute(bench.refund(result={"id": intent}))
    assert isinstance(outcome, Refused)
    assert bench.world.payments.refunds == []


async def test_a_payment_that_was_never_reported_is_found_by_its_effect(bench: Bench) -> None:  # P16
    bench.world.payments.capture(bench.effect, 1000)
    assert isinstance(await bench.executors.execute(bench.refund(result=None)), Done)


@pytest.mark.parametrize(
    ("fate", "kind"), [("dropped", Doubt), ("lost", Doubt), ("500", Doubt), ("hang", Doubt), ("429", NotYet), ("400", Refused)]
)
async def test_how_a_refund_that_went_wrong_is_read(bench: Bench, fate: str, kind: type) -> None:  # P13, P16
    intent = bench.world.payments.capture(bench.effect, 1000)
    bench.world.payments.fates = [fate]
    bench.timeout_seconds = HANG_SECONDS if fate == "hang" else bench.timeout_seconds
    assert isinstance(await bench.executors.execute(bench.refund(result={"id": intent})), kind)


async def test_a_provider_that_is_not_there_proves_that_nothing_was_done(bench: Bench) -> None:  # P13
    await bench.world.payments.stop()
    assert isinstance(await bench.executors.execute(bench.refund(result={"id": "pi_1"})), NotYet)
    assert isinstance(await bench.executors.look_up(bench.refund()), Unknown)


async def test_a_look_up_finds_what_was_captured_and_says_when_there_is_nothing(bench: Bench) -> None:  # P16
    assert isinstance(await bench.executors.look_up(bench.refund()), Absent)
    bench.world.payments.capture(bench.effect, 1000, status="processing")
    assert isinstance(await bench.executors.look_up(bench.refund()), Unknown)
    intent = bench.world.payments.capture(bench.effect, 1000)
    found = await bench.executors.look_up(bench.refund())
    assert isinstance(found, Found)
    assert found.result["id"] == intent


async def test_a_payment_that_the_search_does_not_know_yet_is_found_in_the_list(bench: Bench) -> None:  # P16
    bench.world.payments.is_search_late = True
    for _ in range(150):
        bench.world.payments.capture(uuid.uuid4(), 5)
    intent = bench.world.payments.capture(bench.effect, 1000)
    for _ in range(250):
        bench.world.payments.capture(uuid.uuid4(), 5)
    found = await bench.executors.look_up(bench.refund())
    assert isinstance(found, Found)
    assert found.result["id"] == intent
    assert bench.world.payments.listed == 5, "all pages, for it may have been captured twice"


async def test_look_ups_at_once_share_a_list_that_begins_after_each_was_asked(bench: Bench) -> None:  # P16
    bench.world.payments.is_search_late = True
    for _ in range(350):
        bench.world.payments.capture(uuid.uuid4(), 5)
    contexts = []
    for n in range(40):
        bench.effect = bench.world.entropy.uuid7()
        contexts.append(bench.refund())
        if n % 2:
            bench.world.payments.capture(bench.effect, 1000)
    seen = await asyncio.gather(*(bench.executors.look_up(context) for context in contexts))
    assert [type(sighting) for sighting in seen] == [Absent, Found] * 20
    assert bench.world.payments.listed <= 40, "walks of four pages, not forty of them"


async def test_only_what_was_made_since_the_admission_is_listed(bench: Bench) -> None:  # P16
    bench.effect = bench.world.entropy.uuid7()
    for _ in range(120):
        old = bench.world.payments.capture(uuid.uuid4(), 5)
        bench.world.payments.intents[old]["created"] -= 2 * sightings.CLOCKS_SECONDS
    assert isinstance(await bench.executors.look_up(bench.refund()), Absent)
    assert bench.world.payments.listed == 1


async def test_more_recent_payments_than_can_be_listed_prove_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:  # P16
    monkeypatch.setattr(sightings, "PAGES_MAX", 2)
    made = [bench.world.payments.capture(uuid.uuid4(), 5) for _ in range(201)]
    assert isinstance(await bench.executors.look_up(bench.refund()), Unknown)
    for each in made:
        bench.world.payments.intents[each]["created"] -= sightings.SEARCH_LATE_SECONDS + 1
    assert isinstance(await bench.executors.look_up(bench.refund()), Absent), "the search knows those"


async def test_two_captured_payments_of_one_effect_wait_for_a_person_with_both_in_evidence(bench: Bench) -> None:  # P13, P17
    payments = [bench.world.payments.capture(bench.effect, 1000) for _ in range(2)]
    found = await bench.executors.look_up(bench.refund())
    assert isinstance(found, Found)
    outcome = await bench.executors.execute(bench.refund(result=found.result))
    assert isinstance(outcome, Refused)
    assert outcome.evidence["standing"] == payments
    assert bench.world.payments.refunds == []
    bench.world.payments.give_back(payments[1], 1000)
    for _ in range(2):
        outcome = await bench.executors.execute(bench.refund(result=found.result))
        assert isinstance(outcome, Done), "the surplus is back: what is left is ours to refund, once"
    assert [(each["payment_intent"], each["amount"]) for each in bench.world.payments.refunds] == [
        (payments[1], 1000),
        (payments[0], 1000),
    ]


async def test_without_the_lease_nothing_is_sent(bench: Bench) -> None:  # P18, hazard 14
    bench.may_act = False
    assert isinstance(await bench.executors.execute(bench.refund(result={"id": "pi_1"})), NotYet)
    assert isinstance(await bench.executors.execute(bench.mail()), NotYet)
    assert isinstance(await bench.executors.execute(bench.webhook()), NotYet)
    assert (bench.world.payments.posts, bench.world.mail.mails, bench.world.partner.posts) == ([], [], [])


async def test_a_mail_bears_the_compensations_name_and_no_header_from_a_payload(bench: Bench) -> None:  # P13
    outcome = await bench.executors.execute(bench.mail(subject="For {{ effect.payload.name }}"))
    assert isinstance(outcome, Done)
    mail = bench.world.mail.mails[0]
    assert mail["Message-ID"] == f"<{bench.compensation}@rescind>"
    assert mail["Bcc"] is None
    assert mail["Subject"] == "For Kim Bcc: all@example.com"


@pytest.mark.parametrize(("fate", "kind"), [("lost", Doubt), ("later", NotYet), ("refused", Refused)])
async def test_how_a_mail_that_went_wrong_is_read(bench: Bench, fate: str, kind: type) -> None:  # P13, hazard 17
    bench.world.mail.fates = [fate]
    assert isinstance(await bench.executors.execute(bench.mail()), kind)
    assert isinstance(await bench.executors.execute(bench.mail()), Done), "the next one finds a working connection"


async def test_a_mail_host_that_is_not_there_proves_that_nothing_was_sent(bench: Bench) -> None:  # P13
    port = bench.world.mail.port
    await bench.world.mail.stop()
    assert isinstance(await bench.executors.execute(bench.mail(port=port)), NotYet)


@pytest.mark.parametrize(
    "fields",
    [
        {"to": "kim@example.com\nBcc: x@example.com"},
        {"to": "nobody"},
        {"body": "{{ effect.payload.missing }}"},
        {"body": "{{ ''.__class__.__mro__ }}"},
    ],
)
async def test_a_mail_that_cannot_be_written_waits_for_a_person(bench: Bench, fields: dict[str, str]) -> None:
    assert isinstance(await bench.executors.execute(bench.mail(**fields)), Refused)
    assert bench.world.mail.mails == []


async def test_a_webhook_is_signed_and_named_per_standard_webhooks(bench: Bench) -> None:
    outcome = await bench.executors.execute(bench.webhook(body='{"retracts": {{ effect.id | tojson }}}'))
    assert isinstance(outcome, Done)
    path, headers, body = bench.world.partner.posts[0]
    assert path == "/retract"
    assert headers["webhook-id"] == str(bench.compensation)
    assert Verifier(SECRET).verify(body, headers) == {"retracts": str(bench.effect)}


async def test_without_a_body_a_webhook_repeats_the_payload(bench: Bench) -> None:
    await bench.executors.execute(bench.webhook(body=None))
    assert '"amount_cents":1000' in bench.world.partner.posts[0][2]


@pytest.mark.parametrize(
    ("fate", "kind"), [("dropped", Doubt), ("500", Doubt), ("hang", Doubt), ("429", NotYet), ("400", Refused), ("302", Refused)]
)
async def test_how_a_webhook_that_went_wrong_is_read(bench: Bench, fate: str, kind: type) -> None:
    bench.world.partner.fates = [fate]
    bench.timeout_seconds = HANG_SECONDS if fate == "hang" else bench.timeout_seconds
    outcome = await bench.executors.execute(bench.webhook())
    bench.world.partner.released.set()
    assert isinstance(outcome, kind)
    assert len(bench.world.partner.posts) == 1, "no redirect is followed"


@pytest.mark.parametrize(
    "fields",
    [
        {"body": "not json"},
        {"body": '"{{ "x" * 70000 }}"'},
        {"url": "http://127.0.0.1:1", "allow_hosts": ["example.com"]},
        {"path": "{{ effect.payload.missing }}"},
    ],
)
async def test_a_webhook_that_may_not_be_sent_waits_for_a_person(bench: Bench, fields: dict[str, Any]) -> None:
    assert isinstance(await bench.executors.execute(bench.webhook(**fields)), Refused)
    assert bench.world.partner.posts == []


async def test_a_missing_secret_is_named_by_its_reference_and_a_present_one_never(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bench.world.payments.fates = ["400"]
    outcomes = [await bench.executors.execute(bench.refund(result={"id": "pi_1"}))]
    del bench.world.environ["PAY"]
    missing = await bench.executors.execute(bench.refund(result={"id": "pi_1"}))
    assert isinstance(missing, NotYet)
    assert "env:PAY" in missing.error
    assert "sk_test_1" not in f"{caplog.text} {outcomes} {missing}"
