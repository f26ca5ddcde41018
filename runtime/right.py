"""The right of a request that stays open: looked at again for as long as it lasts, so that a revocation ends it (P20).

A request is let in once; one that waits, polls or streams asks again before it takes or tells anything more. Where it pauses it
looks several times a second, whatever it waits for, and from memory mostly: `Verifier` answers many at the cost of one.
"""

from __future__ import annotations

from runtime.clock import Clock
from runtime.verifier import Verifier

LOOK_SECONDS = 0.25
"""So often a pause is broken off for a look: with the verifier's own half second a revocation holds within one."""


class Right:
    """Of one request, by the token that it came with."""

    def __init__(self, verifier: Verifier, token: str | None, clock: Clock) -> None:
        self._verifier = verifier
        self._token = token
        self._clock = clock

    async def check(self) -> None:
        """Raises a 401 `Problem` for a token revoked or expired meanwhile, `Unavailable` where that cannot be told."""
        await self._verifier.verify(self._token)

    async def pause(self, seconds: float) -> None:
        """Sleep, and have looked at the end of it. Raises as `check` does, within `LOOK_SECONDS` of a refusal."""
        deadline = self._clock.monotonic() + seconds
        while (left := deadline - self._clock.monotonic()) > 0:
            await self._clock.sleep(min(left, LOOK_SECONDS))
            await self.check()
