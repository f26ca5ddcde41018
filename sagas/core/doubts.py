"""Attempts whose outcome nobody knows: what a later attempt did not do is no news of an earlier one (P16). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

OPEN = ("admitted", "in_doubt")
PROOF = ("failed", "not_started")
LOOKED_UP = ("look_up", "absent")


def earlier_doubt(evidence: Sequence[dict[str, Any]]) -> bool:
    """Whether an earlier attempt may have acted: it was followed by another before its outcome was known, and neither a report
    of its own nor a look-up proves since that it did nothing.

    >>> silent = {"what": "attempt", "token": "a", "status": "admitted"}
    >>> earlier_doubt([silent]), earlier_doubt([silent, {"what": "report", "token": "a", "outcome": "failed"}])
    (True, False)
    """
    absent = [index for index, one in enumerate(evidence) if (one.get("what"), one.get("outcome")) == LOOKED_UP]
    evidence = evidence[absent[-1] + 1 :] if absent else evidence
    proven = {one["token"] for one in evidence if one.get("what") == "report" and one.get("outcome") in PROOF}
    return any(one.get("what") == "attempt" and one.get("status") in OPEN and one["token"] not in proven for one in evidence)
