"""The judge: from the purchases and the outside world's own ledgers alone, what must be true; and what is not.

It knows which captures must survive (those of the old path), never asks Rescind what it did, and only at the end holds the
rollback's report against its own sums (P12, P13). Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum

import msgspec

from demo.ledgers import Ledgers
from demo.purchases import Purchase
from demo.release import NEW, OLD

CAPTURE = "payment.capture"
CONFIRMATION = "mail.confirmation"
WEBHOOK = "partner.webhook"


class Sort(StrEnum):
    """What a finding is about."""

    MONEY = "money"
    MAIL = "mail"
    WEBHOOK = "webhook"
    REPORT = "report"


class Code(StrEnum):
    """What can be wrong. The names never change."""

    CAPTURED_FREE = "captured_free"
    NEVER_CAPTURED = "never_captured"
    WRONG_CAPTURE = "wrong_capture"
    CHARGED_TWICE = "charged_twice"
    NOT_ON_OLD_PATH = "not_on_old_path"
    REFUND_MISSING = "refund_missing"
    REFUND_DOUBLED = "refund_doubled"
    REFUND_NOT_WHOLE = "refund_not_whole"
    REFUND_WRONG = "refund_wrong"
    CORRECTION_MISSING = "correction_missing"
    CORRECTION_DOUBLED = "correction_doubled"
    CORRECTION_WRONG = "correction_wrong"
    CONFIRMATION_WRONG = "confirmation_wrong"
    RETRACTION_MISSING = "retraction_missing"
    RETRACTION_WRONG = "retraction_wrong"
    REPORT_DIFFERS = "report_differs"
    REPORT_OPEN = "report_open"
    REPORT_SUM = "report_sum"
    SET_DIFFERS = "set_differs"

    @property
    def sort(self) -> Sort:
        """Money, mail, webhooks, or the report."""
        match self.value.partition("_")[0]:
            case "correction" | "confirmation":
                return Sort.MAIL
            case "retraction":
                return Sort.WEBHOOK
            case "report" | "set":
                return Sort.REPORT
            case _:
                return Sort.MONEY


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One difference: what, about which payment, order, customer or kind, and how it reads."""

    code: Code
    about: str
    detail: str


class KindReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the rollback's report says of one kind of effect."""

    admitted: int = 0
    compensated: int = 0
    never_happened: int = 0
    irreversible: int = 0
    skipped: int = 0
    waiting: int = 0
    pending: int = 0
    amounts: dict[str, dict[str, int]] = {}

    def money(self, name: str) -> int:
        """Minor units of one of the sums, over all currencies (the demo has one)."""
        return sum(sums.get(name, 0) for sums in self.amounts.values())


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What the judge looks at. `after` are the orders first placed when the kill had been answered."""

    purchases: Sequence[Purchase]
    after: Collection[str]
    ledgers: Ledgers


def judge(case: Case) -> list[Finding]:
    """Every difference between the ledgers and what the purchases demand."""
    return [*_captures(case), *_refunds(case.ledgers), *_mails(case), *_webhooks(case.ledgers)]


def _captures(case: Case) -> Iterator[Finding]:
    """Each order is paid once on the old path, or was taken by the bad release; purchases of 0.00 are never captured."""
    orders = {purchase.order_id: purchase for purchase in case.purchases}
    by_path: dict[str, Counter[str]] = {path: Counter(i.order_id for i in case.ledgers.captured(path)) for path in (OLD, NEW)}
    for intent in case.ledgers.intents:
        order = orders.get(intent.order_id)
        if intent.status != "succeeded" or intent.path not in (OLD, NEW) or order is None:
            yield Finding(code=Code.WRONG_CAPTURE, about=intent.id, detail="belongs to no order, or no path")
        elif order.amount_cents == 0:
            yield Finding(code=Code.CAPTURED_FREE, about=order.order_id, detail=f"{intent.id} captured a purchase of 0.00")
        elif intent.amount != order.amount_cents:
            detail = f"order {order.order_id} costs {order.amount_cents}, captured {intent.amount}"
            yield Finding(code=Code.WRONG_CAPTURE, about=intent.id, detail=detail)
    for order in case.purchases:
        new, old = by_path[NEW][order.order_id], by_path[OLD][order.order_id]
        if order.order_id in case.after and new:
            yield Finding(code=Code.NOT_ON_OLD_PATH, about=order.order_id, detail="placed after the kill, on the new path")
        if old > 1:
            yield Finding(code=Code.CHARGED_TWICE, about=order.order_id, detail=f"captured {old} times by the old path")
        if order.amount_cents and not old and (not new or order.order_id in case.after):
            yield Finding(code=Code.NEVER_CAPTURED, about=order.order_id, detail=f"{order.amount_cents} never captured")


def _refunds(ledgers: Ledgers) -> Iterator[Finding]:
    """Each capture of the new path is refunded once and in full, none of the old path is."""
    by_intent: dict[str, list[int]] = defaultdict(list)
    for refund in ledgers.refunds:
        by_intent[refund.payment_intent].append(refund.amount)
    must = {intent.id: intent for intent in ledgers.captured(NEW)}
    for intent in must.values():
        amounts = by_intent.get(intent.id, [])
        about = f"{intent.id} of order {intent.order_id}"
        if not amounts:
            yield Finding(code=Code.REFUND_MISSING, about=about, detail=f"{intent.amount} captured, never given back")
        elif len(amounts) > 1:
            detail = f"{intent.amount} captured, given back {len(amounts)} times: {sum(amounts)}"
            yield Finding(code=Code.REFUND_DOUBLED, about=about, detail=detail)
        elif amounts != [intent.amount]:
            yield Finding(code=Code.REFUND_NOT_WHOLE, about=about, detail=f"{intent.amount} captured, {amounts[0]} given back")
    for refund in ledgers.refunds:
        if refund.payment_intent not in must:
            detail = f"{refund.amount} given back of {refund.payment_intent}, which must survive"
            yield Finding(code=Code.REFUND_WRONG, about=refund.id, detail=detail)


def _mails(case: Case) -> Iterator[Finding]:
    """One correction to each customer whom the new path wrote to, none to others; the old path confirms an order once."""
    affected = {mail.to for mail in case.ledgers.confirmations(NEW)}
    corrected = Counter(mail.to for mail in case.ledgers.corrections())
    for address in sorted(affected | set(corrected)):
        count = corrected[address]
        if address not in affected:
            yield Finding(code=Code.CORRECTION_WRONG, about=address, detail="got a correction and no wrong confirmation")
        elif count == 0:
            yield Finding(code=Code.CORRECTION_MISSING, about=address, detail="got wrong confirmations and no correction")
        elif count > 1:
            yield Finding(code=Code.CORRECTION_DOUBLED, about=address, detail=f"got {count} corrections")
    addresses = {purchase.order_id: purchase.email for purchase in case.purchases}
    confirmed = Counter(mail.order_id for mail in case.ledgers.confirmations(OLD))
    for mail in case.ledgers.mails:
        if mail.path is not None and (mail.path not in (OLD, NEW) or addresses.get(mail.order_id) != mail.to):
            yield Finding(code=Code.CONFIRMATION_WRONG, about=mail.to, detail=f"{mail.message_id} is for no order of theirs")
    for order_id in addresses:
        count = confirmed[order_id]
        if count > 1 or (count == 0 and order_id in case.after):
            yield Finding(code=Code.CONFIRMATION_WRONG, about=order_id, detail=f"confirmed {count} times by the old path")


def _webhooks(ledgers: Ledgers) -> Iterator[Finding]:
    """Each webhook of the new path has one retraction whose signature holds; no other has one."""
    must = {delivery.webhook_id for delivery in ledgers.delivered(NEW)}
    retracted = Counter(str(notice.body.get("retracts")) for notice in ledgers.retractions)
    for notice in ledgers.retractions:
        if notice.fault is not None:
            yield Finding(code=Code.RETRACTION_WRONG, about=notice.webhook_id, detail=notice.fault)
    for webhook_id in sorted(must | set(retracted)):
        count = retracted[webhook_id]
        if webhook_id not in must:
            yield Finding(code=Code.RETRACTION_WRONG, about=webhook_id, detail="retracts what the new path never sent")
        elif count != 1:
            code = Code.RETRACTION_MISSING if count == 0 else Code.RETRACTION_WRONG
            yield Finding(code=code, about=webhook_id, detail=f"delivered by the new path, retracted {count} times")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the rollback says of itself: its sums per kind, and which effects it has ended as undone or irreversible."""

    kinds: dict[str, KindReport]
    ended: dict[str, frozenset[str]]


def compare(ledgers: Ledgers, report: Report) -> list[Finding]:
    """Every difference between the rollback's report and the judge's own sums over the ledgers (P12)."""
    captured = ledgers.captured(NEW)
    expected = {
        CAPTURE: ("compensated", [intent.effect_id for intent in captured]),
        CONFIRMATION: ("compensated", [mail.effect_id for mail in ledgers.confirmations(NEW)]),
        WEBHOOK: ("irreversible", [delivery.webhook_id for delivery in ledgers.delivered(NEW)]),
    }
    findings: list[Finding] = []
    for kind in sorted({*expected, *report.kinds, *report.ended}):
        name, effects = expected.get(kind, ("admitted", []))
        said = report.kinds.get(kind, KindReport())
        findings += [*_kind(kind, said), *_ended(kind, effects, report.ended.get(kind, frozenset()))]
        reported = int(getattr(said, name))
        others = said.compensated + said.irreversible - reported
        if reported != len(effects) or others:
            detail = f"the ledgers hold {len(effects)}, the report says {name} {reported} and {others} otherwise"
            findings.append(Finding(code=Code.REPORT_DIFFERS, about=kind, detail=detail))
    money = sum(intent.amount for intent in captured)
    said_money = report.kinds.get(CAPTURE, KindReport()).money("compensated")
    if money != said_money:
        detail = f"the ledgers hold {money} to give back, the report says {said_money}"
        findings.append(Finding(code=Code.REPORT_DIFFERS, about=f"{CAPTURE} money", detail=detail))
    return findings


def _ended(kind: str, effects: Sequence[str], ended: frozenset[str]) -> Iterator[Finding]:
    """One by one: what the outside world has seen of the release is what the rollback has ended, no more and no less."""
    seen = Counter(effects)
    for effect_id in sorted({*seen, *ended}):
        if seen[effect_id] != 1 or effect_id not in ended:
            detail = f"in the ledgers {seen[effect_id]} times, {'ended' if effect_id in ended else 'not ended'} by the rollback"
            yield Finding(code=Code.SET_DIFFERS, about=f"{kind} {effect_id}", detail=detail)


def _kind(kind: str, said: KindReport) -> Iterator[Finding]:
    total = said.compensated + said.never_happened + said.irreversible + said.skipped + said.waiting + said.pending
    if total != said.admitted:
        yield Finding(code=Code.REPORT_SUM, about=kind, detail=f"{said.admitted} in the set, {total} accounted for")
    if said.pending or said.waiting or said.skipped:
        detail = f"{said.pending} pending, {said.waiting} waiting, {said.skipped} skipped"
        yield Finding(code=Code.REPORT_OPEN, about=kind, detail=detail)


def sabotage_found(findings: Sequence[Finding]) -> bool:
    """Whether exactly the two acts of sabotage were found: one refund missing, one doubled, and nothing else."""
    return Counter(finding.code for finding in findings) == {Code.REFUND_MISSING: 1, Code.REFUND_DOUBLED: 1}
