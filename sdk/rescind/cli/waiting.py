"""Why effects are not undone yet, in words: what is tried again, and what waits for a person, who does what (P16)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

REASONS = {
    "interrupted": (
        "an attempt was cut off and may have acted",
        "look at the other side once it can no longer act; skip it if it was done, else retry",
    ),
    "in_doubt": ("nobody knows whether it was done", "look at the other side; undo it there by hand if it was, then skip"),
    "attempts_exhausted": ("every attempt failed", "mend what refuses (the report names it), then retry"),
    "age_exhausted": ("it failed for as long as its definition allows", "mend what refuses (the report names it), then retry"),
    "provider_window_passed": ("the provider no longer knows our key", "look whether it is undone; skip it if so, else retry"),
    "refused": ("the other side refused", "the report has its answer; mend it, then retry, or do it by hand and skip"),
    "no_definition": ("nothing says how to undo it", "register its definition, then retry; or do it by hand and skip"),
    "no_compensation": ("its definition names no compensation", "do it by hand, then skip"),
    "approval": ("it gives more money back than the saga allows by itself", "retry agrees to it; skip leaves it as it is"),
    "notice_unapproved": ("its notice is not approved", "retry sends the notice, acknowledge does not"),
    "look_up_exhausted": ("the provider could not say whether it was done", "look there by hand; then retry or skip"),
    "no_worker": ("no live worker serves it", "start one: rescind work MODULE:SAGA; nothing else is needed"),
}


def in_words(reason: str | None) -> str:
    """The reason as a sentence; one that this version does not know as it is."""
    return REASONS.get(reason or "", (reason or "", ""))[0]


def lines(counts: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """One line per kind and reason."""
    for kind, numbers in counts.items():
        for reason, number in (numbers.get("waiting_for") or {}).items():
            said, step = REASONS.get(reason, (reason, "see the report"))
            yield f"{number} {kind} wait: {said}. {step[:1].upper()}{step[1:]}."


def proceeding(record: Mapping[str, Any]) -> Iterable[str]:
    """What was begun without the server, and who may still hold records of more: the rollback is not settled before they speak.

    >>> one = {"service": "shop", "instance": "shop@a", "seen_at": "10:00", "has_open": True, "cleared_at": None, "how": None}
    >>> list(proceeding({"id": "7", "proceeding": {"flags": ["f"], "effects": 2, "holders": [one]}}))[1]
    'shop shop@a holds records, last seen 10:00: the rollback settles when it has delivered them'
    """
    found = record.get("proceeding")
    if not found:
        return
    yield f"{', '.join(found['flags'])} proceeds without the server: {found['effects']} such effects"
    missing = [holder for holder in found["holders"] if holder["cleared_at"] is None]
    for holder in missing:
        what = "holds records" if holder["has_open"] else "may hold records"
        yield (
            f"{holder['service']} {holder['instance']} {what}, last seen {holder['seen_at']}: "
            f"the rollback settles when it has {'delivered them' if holder['has_open'] else 'said that it has none'}"
        )
    if missing:
        yield f"lost with its disk? rescind skip {record['id']} --instance {missing[0]['instance']} --reason TEXT"
    for holder in found["holders"]:
        if holder["how"] == "written_off":
            yield f"{holder['service']} {holder['instance']} was written off by {holder['by_whom']}: {holder['reason']}"


def continuing(record: Mapping[str, Any]) -> Iterable[str]:
    """The instances that the kill lets go on by name: the rollback waits until they have ended.

    >>> one = {"saga": "order", "version": "1", "state": "waiting", "reason": "in_doubt", "instances": 2}
    >>> list(continuing({"continuing": {"instances": [one], "continued": {"mail": 3}}}))
    ['2 of order 1 go on first (waiting: in_doubt): undone once they have ended', '3 mail continued since the kill']
    """
    found = record.get("continuing") or {}
    for one in found.get("instances", []):
        stands = f" ({one['state']}: {one['reason']})" if one["reason"] else ""
        verb = "goes" if one["instances"] == 1 else "go"
        yield f"{one['instances']} of {one['saga']} {one['version']} {verb} on first{stands}: undone once they have ended"
    for kind, number in found.get("continued", {}).items():
        yield f"{number} {kind} continued since the kill"


def failing(record: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Per kind that fails and is tried again: what is the matter, and where that stands (it changes with every attempt).

    >>> one = {"kind": "payment", "number": 2, "attempt": 3, "error": "refused", "next_try_at": "2026-01-01T00:00:04+00:00"}
    >>> list(failing({"retrying": [one], "as_of": "2026-01-01T00:00:00+00:00"}))
    [('2 payment failing: refused', 'attempt 3, next try in 4 s')]
    """
    for one in record.get("retrying") or []:
        yield (
            f"{one['number']} {one['kind']} failing: {one['error']}",
            f"attempt {one['attempt']}, {_next(one, record['as_of'])}",
        )


def _next(one: Mapping[str, Any], as_of: str) -> str:
    if one["next_try_at"] is None:
        return "being tried now"
    seconds = (datetime.fromisoformat(one["next_try_at"]) - datetime.fromisoformat(as_of)).total_seconds()
    return f"next try in {seconds:.0f} s" if seconds >= 1 else "next try at once"
