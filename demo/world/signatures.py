"""Standard Webhooks signatures, checked as a receiver would who has read the specification (standardwebhooks.com, v1)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping

TOLERANCE_SECONDS = 300.0


def fault(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> str | None:
    """What is wrong with a signed delivery, or None. `secret` as `whsec_<base64>`; header names in lower case.

    >>> fault("whsec_AAAA", {}, b"", 0.0)
    'webhook-id is missing'
    """
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        if not headers.get(name):
            return f"{name} is missing"
    stamp = headers["webhook-timestamp"]
    if not stamp.isdecimal() or abs(now - int(stamp)) > TOLERANCE_SECONDS:
        return "webhook-timestamp is outside the tolerance"
    signed = f"{headers['webhook-id']}.{stamp}.".encode() + body
    digest = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(digest).decode()
    if not any(hmac.compare_digest(given.encode(), expected.encode()) for given in headers["webhook-signature"].split()):
        return "no signature matches"
    return None
