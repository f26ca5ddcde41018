"""Which environments there are: flags have them, so the roof says; a write into one that does not exist is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from runtime.problem import Problem, suggest

SHOWN_MAX = 10


class Environments:
    """`names` reads those that there are now."""

    def __init__(self, names: Callable[[], Awaitable[Sequence[str]]]) -> None:
        self._names = names

    async def require(self, name: str) -> None:
        """Raise `Problem` 404 with the nearest name, unless there is this environment."""
        known = await self._names()
        if name not in known:
            raise Problem(
                404,
                "unknown_environment",
                "Unknown environment",
                f"There is no environment {name[:80]!r}.",
                suggestion=suggest(name, known),
                next_step=f"there are {', '.join(known[:SHOWN_MAX])}" if known else None,
            )
