"""The demo's world as real processes: how tests start it, and the secrets they share with it."""

from __future__ import annotations

import sys

from demo.processes import Children

KEY = "sk_test_demo"
CONTROL_TOKEN = "control"
SECRET = "whsec_c2VjcmV0IG9mIHRoZSBkZW1vIHBhcnRuZXI="
ENVIRONMENT = {"PAYMENTS_KEY": KEY, "CONTROL_TOKEN": CONTROL_TOKEN, "PARTNER_SECRET": SECRET}


async def start(children: Children, name: str) -> dict[str, int]:
    """One server of the world; its ports."""
    child = await children.start(name, [sys.executable, "-m", f"demo.world.{name}"], ENVIRONMENT)
    return await child.ports(timeout_seconds=60)
