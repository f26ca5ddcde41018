"""The declared executors, by what a definition asks for. What goes wrong in one is in doubt, never lost and never called
done."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping

import msgspec

from runtime.clock import Clock
from runtime.telemetry import counter
from sagas.definitions import Email, Refund, Webhook, Worker
from sagas.executors.email import EmailExecutor
from sagas.executors.outcomes import Context, Doubt, Outcome, Refused, Sighting, Unknown, told
from sagas.executors.refund import RefundExecutor
from sagas.executors.webhook import WebhookExecutor

GUARD_PARTS = 2.0
"""An executor's calls (envelope and mail, look-up and refund) take its time-out each and this many of them together."""

log = logging.getLogger("rescind.executors")
failures = counter("rescind.executors.failures")


class Executors:
    """One per process. Secrets are read from `environ` and files when they are needed."""

    def __init__(self, clock: Clock, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._refund = RefundExecutor(environ, clock)
        self._email = EmailExecutor(environ, clock)
        self._webhook = WebhookExecutor(environ, clock)

    async def execute(self, context: Context) -> Outcome:
        """Carry the compensation out, once."""
        try:
            async with asyncio.timeout(context.timeout_seconds * GUARD_PARTS):
                match context.executor:
                    case Refund():
                        return await self._refund.execute(context)
                    case Email():
                        return await self._email.execute(context)
                    case Webhook():
                        return await self._webhook.execute(context)
                    case Worker():
                        return Refused(reason="a worker claims this by itself")
        except Exception as error:
            failures.add(1, {"verb": "act"})
            log.exception("executor of %s failed", context.action_key)
            return Doubt(evidence={"error": told(error)})

    async def look_up(self, context: Context) -> Sighting:
        """Ask the provider whether the effect was done."""
        try:
            async with asyncio.timeout(context.timeout_seconds * GUARD_PARTS):
                if isinstance(context.executor, Refund):
                    return await self._refund.look_up(context)
                return Unknown(error=f"{msgspec.to_builtins(context.executor)['executor']} has no look-up")
        except Exception as error:
            failures.add(1, {"verb": "look_up"})
            log.exception("look-up of %s failed", context.action_key)
            return Unknown(error=told(error))

    async def close(self) -> None:
        """Close every connection."""
        await self._refund.close()
        await self._email.close()
        await self._webhook.close()
