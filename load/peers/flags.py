"""The flags and the users of the comparison, told in no one's format."""

from __future__ import annotations

from typing import Any, NamedTuple

PLAIN, ONE, TWENTY = "plain", "one", "twenty"
TITLES = {PLAIN: "a plain boolean", ONE: "country list and plan, then 25 %", TWENTY: "20 such rules, the last matches"}
SHARE = 25


class Rule(NamedTuple):
    """Users of these countries on this plan: on for `SHARE` percent of them."""

    countries: tuple[str, ...]
    plan: str


HIT = Rule(("AT", "CH", "DE"), "pro")
MISSES = [Rule((f"X{number}", f"Y{number}", f"Z{number}"), "pro") for number in range(19)]
FLAGS: dict[str, list[Rule]] = {PLAIN: [], ONE: [HIT], TWENTY: [*MISSES, HIT]}
"""Without a rule a flag is on for everyone."""


def user(number: int) -> dict[str, Any]:
    """A user whom the last rule matches."""
    return {"key": f"user-{number}", "country": "DE", "plan": "pro", "email": f"user-{number}@example.com"}
