"""Why effects wait for a person, in words, and what the person does about it (P16)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

REASONS = {
    "interrupted": (
        "an attempt was cut off and may have acted",
        "look at the other side once it can no longer act; skip it if it was done, else retry",
    ),
    "in_doubt": ("nobody knows whether it was done", "look at the other side; undo it there by hand if it was, then skip"),
    "attempts_exhausted": ("every attempt failed", "mend what refuses (the report names it), then retry"),
    "provider_window_passed": ("the provider no longer knows our key", "look whether it is undone; skip it if so, else retry"),
    "refused": ("the other side refused", "the report has its answer; mend it, then retry, or do it by hand and skip"),
    "no_definition": ("nothing says how to undo it", "register its definition, then retry; or do it by hand and skip"),
    "no_compensation": ("its definition names no compensation", "do it by hand, then skip"),
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
