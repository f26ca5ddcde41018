"""What a judge of statements answers."""

from __future__ import annotations

from typing import NamedTuple


class Verdict(NamedTuple):
    """The name of the rule, what it is about, and what to know beside it."""

    rule: str
    about: str = ""
    note: str | None = None
