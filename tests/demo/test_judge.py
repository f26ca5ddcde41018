"""The judge: a world in which everything holds is passed, and whatever is tampered with is found (P12, P13)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from demo.judge import CAPTURE, CONFIRMATION, WEBHOOK, Case, Code, KindReport, Report, compare, judge, sabotage_found
from demo.ledgers import Delivery, Intent, Ledgers, Mail, Refund
from demo.purchases import Purchase, load

PURCHASES = load(40, seed=3)
AFTER = frozenset(purchase.order_id for purchase in PURCHASES[20:])
Draw = Callable[[st.SearchStrategy[int]], int]


def intent(purchase: Purchase, path: str, attempt: int = 1) -> Intent:
    return Intent(
        id=f"pi_{purchase.order_id}_{path}_{attempt}",
        amount=purchase.amount_cents,
        status="succeeded",
        metadata={"path": path, "order_id": purchase.order_id, "rescind_effect": f"c{purchase.order_id}{path}{attempt}"},
    )


def mail(purchase: Purchase, path: str, attempt: int = 1) -> Mail:
    headers = {"x-path": path, "x-order": purchase.order_id}
    name = f"<{purchase.order_id}.{path}.{attempt}@example.test>"
    return Mail(message_id=name, to=purchase.email, subject="Your order", headers=headers)


def world() -> Ledgers:
    """Every second of the first twenty orders went through the bad release: confirmed twice, every fourth charged twice."""
    intents, mails, deliveries = [], [], []
    for number, purchase in enumerate(PURCHASES):
        path = "new" if purchase.order_id not in AFTER and number % 2 == 0 else "old"
        attempts = 2 if path == "new" and number % 4 == 0 else 1
        if purchase.amount_cents:
            intents += [intent(purchase, path, attempt) for attempt in range(attempts)]
        mails += [mail(purchase, path, attempt) for attempt in range(2 if path == "new" else 1)]
        deliveries.append(Delivery(webhook_id=f"e{number}", body={"order_id": purchase.order_id, "path": path}))
    refunds = [Refund(id=f"re_{i.id}", payment_intent=i.id, amount=i.amount) for i in intents if i.path == "new"]
    affected = sorted({each.to for each in mails if each.path == "new"})
    mails += [Mail(message_id=f"<correction.{to}>", to=to, subject="Correction") for to in affected]
    retractions = [
        Delivery(webhook_id=f"n{each.webhook_id}", body={"retracts": each.webhook_id})
        for each in deliveries
        if each.body["path"] == "new"
    ]
    return Ledgers(intents=intents, refunds=refunds, mails=mails, deliveries=deliveries, retractions=retractions)


def report(ledgers: Ledgers) -> Report:
    captured = ledgers.captured("new")
    money = sum(each.amount for each in captured)
    mails, webhooks = len(ledgers.confirmations("new")), len(ledgers.delivered("new"))
    kinds = {
        CAPTURE: KindReport(
            admitted=len(captured) + 3, compensated=len(captured), never_happened=3, amounts={"USD": {"compensated": money}}
        ),
        CONFIRMATION: KindReport(admitted=mails, compensated=mails),
        WEBHOOK: KindReport(admitted=webhooks, irreversible=webhooks),
    }
    ended = {
        CAPTURE: frozenset(each.effect_id for each in captured),
        CONFIRMATION: frozenset(each.effect_id for each in ledgers.confirmations("new")),
        WEBHOOK: frozenset(each.webhook_id for each in ledgers.delivered("new")),
    }
    return Report(kinds=kinds, ended=ended)


def saying(kind: str, said: KindReport) -> Report:
    return msgspec.structs.replace(REPORT, kinds=REPORT.kinds | {kind: said})


WORLD = world()
REPORT = report(WORLD)


def codes(ledgers: Ledgers) -> set[Code]:
    return {each.code for each in judge(Case(purchases=PURCHASES, after=AFTER, ledgers=ledgers))}


def test_a_world_in_which_everything_holds_is_passed() -> None:
    assert judge(Case(purchases=PURCHASES, after=AFTER, ledgers=WORLD)) == []
    assert compare(WORLD, REPORT) == []


def without(name: str, index: int) -> Ledgers:
    entries = list(getattr(WORLD, name))
    entries.pop(index % len(entries))
    return msgspec.structs.replace(WORLD, **{name: entries})


def doubled(name: str, index: int) -> Ledgers:
    entries = list(getattr(WORLD, name))
    return msgspec.structs.replace(WORLD, **{name: [*entries, entries[index % len(entries)]]})


@given(st.sampled_from(["refunds", "retractions"]), st.integers(0, 1000), st.booleans())
def test_whatever_undoing_is_lost_or_doubled_is_found(name: str, index: int, lost: bool) -> None:
    assert codes(without(name, index) if lost else doubled(name, index))


@given(st.integers(0, 1000), st.integers(-500, 500).filter(bool))
def test_a_refund_of_another_amount_is_found(index: int, by: int) -> None:
    refunds = list(WORLD.refunds)
    place = index % len(refunds)
    refunds[place] = msgspec.structs.replace(refunds[place], amount=refunds[place].amount + by)
    assert codes(msgspec.structs.replace(WORLD, refunds=refunds)) == {Code.REFUND_NOT_WHOLE}


@given(st.integers(0, 1000))
def test_a_refund_of_what_must_survive_is_found(index: int) -> None:
    kept = WORLD.captured("old")
    wrong = kept[index % len(kept)]
    refunds = [*WORLD.refunds, Refund(id="re_x", payment_intent=wrong.id, amount=wrong.amount)]
    assert codes(msgspec.structs.replace(WORLD, refunds=refunds)) == {Code.REFUND_WRONG}


@given(st.integers(0, 1000), st.booleans())
def test_a_correction_lost_or_sent_twice_is_found(index: int, lost: bool) -> None:
    corrections = WORLD.corrections()
    chosen = corrections[index % len(corrections)]
    mails = [each for each in WORLD.mails if each is not chosen] if lost else [*WORLD.mails, chosen]
    expected = Code.CORRECTION_MISSING if lost else Code.CORRECTION_DOUBLED
    assert codes(msgspec.structs.replace(WORLD, mails=mails)) == {expected}


@given(st.integers(0, 1000))
def test_a_capture_that_is_lost_or_moved_to_another_path_is_found(index: int) -> None:
    intents = list(WORLD.intents)
    place = index % len(intents)
    moved = "old" if intents[place].path == "new" else "new"
    changed = msgspec.structs.replace(intents[place], metadata=intents[place].metadata | {"path": moved})
    tampered = msgspec.structs.replace(WORLD, intents=[*intents[:place], changed, *intents[place + 1 :]])
    assert codes(tampered) or compare(tampered, REPORT)
    lost = without("intents", index)
    assert codes(lost) or compare(lost, REPORT)


@given(st.sampled_from([CAPTURE, CONFIRMATION, WEBHOOK]), st.sampled_from(KindReport.__struct_fields__[:-1]), st.integers(1, 5))
def test_a_report_that_says_something_else_is_found(kind: str, name: str, by: int) -> None:
    said = msgspec.structs.replace(REPORT.kinds[kind], **{name: getattr(REPORT.kinds[kind], name) + by})
    assert compare(WORLD, saying(kind, said))


def test_money_that_the_report_miscounts_is_found() -> None:
    said = msgspec.structs.replace(REPORT.kinds[CAPTURE], amounts={"USD": {"compensated": 1}})
    assert [each.code for each in compare(WORLD, saying(CAPTURE, said))] == [Code.REPORT_DIFFERS]


def test_an_effect_of_a_kind_that_nobody_sent_is_found() -> None:
    assert compare(WORLD, saying("sms.welcome", KindReport(admitted=1, compensated=1)))


@given(st.sampled_from([CAPTURE, CONFIRMATION, WEBHOOK]), st.integers(0, 1000))
def test_another_effect_ended_in_the_place_of_one_is_found(kind: str, index: int) -> None:
    ended = sorted(REPORT.ended[kind])
    ended[index % len(ended)] = "another"
    found = compare(WORLD, msgspec.structs.replace(REPORT, ended=REPORT.ended | {kind: frozenset(ended)}))
    assert [each.code for each in found] == [Code.SET_DIFFERS] * 2


def test_a_purchase_of_nothing_that_was_captured_is_found() -> None:
    free = next(each for each in PURCHASES if each.amount_cents == 0)
    taken = msgspec.structs.replace(intent(free, "old"), amount=100)
    assert codes(msgspec.structs.replace(WORLD, intents=[*WORLD.intents, taken])) == {Code.CAPTURED_FREE}


def test_an_order_after_the_kill_on_the_new_path_is_found() -> None:
    late = next(each for each in PURCHASES if each.order_id in AFTER and each.amount_cents)
    taken = intent(late, "new")
    refund = Refund(id="re_late", payment_intent=taken.id, amount=taken.amount)
    ledgers = msgspec.structs.replace(WORLD, intents=[*WORLD.intents, taken], refunds=[*WORLD.refunds, refund])
    assert codes(ledgers) == {Code.NOT_ON_OLD_PATH}


def test_a_retraction_with_a_bad_signature_is_found() -> None:
    bad = msgspec.structs.replace(WORLD.retractions[0], fault="no signature matches")
    assert codes(msgspec.structs.replace(WORLD, retractions=[bad, *WORLD.retractions[1:]])) == {Code.RETRACTION_WRONG}


def test_sabotage_counts_as_found_only_when_both_acts_are_and_nothing_else() -> None:
    dropped, twice = WORLD.refunds[0], WORLD.refunds[1]
    extra = msgspec.structs.replace(twice, id="re_again")
    both = [each for each in WORLD.refunds if each is not dropped] + [extra]
    one = [*WORLD.refunds, extra]
    for refunds, expected in ((both, True), (one, False), (WORLD.refunds, False)):
        ledgers = msgspec.structs.replace(WORLD, refunds=refunds)
        assert sabotage_found(judge(Case(purchases=PURCHASES, after=AFTER, ledgers=ledgers))) is expected
