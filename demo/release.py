"""The release that the demo sends out and kills: its flag, its two paths, and what undoes an order (order.json)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FLAG = "checkout.new-flow"
NEW = "new"
OLD = "old"
"""Which path of the code did it: the services write it beside everything they send out, as people do with a release's name."""
SAGA = ("order", "1")
DEFINITION = Path(__file__).with_name("order.json")
ROLLOUT_PERCENT = 70


def flag_document() -> dict[str, Any]:
    """The flag: rolled out to most customers, each of them always on the same path."""
    return {
        "key": FLAG,
        "definition": {
            "state": "ENABLED",
            "variants": {"on": True, "off": False},
            "defaultVariant": "off",
            "targeting": {"fractional": [["on", ROLLOUT_PERCENT], ["off", 100 - ROLLOUT_PERCENT]]},
        },
        "kind": "release",
        "owner": "checkout-team",
        "services": ["checkout", "payments", "notifications"],
        "off_variant": "off",
        "description": "A new way to take orders. It is bad: it confirms twice, and charges twice whoever posts twice.",
    }
