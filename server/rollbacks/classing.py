"""The migrations of a release judged in a process of its own, within limits: a server's loop never waits for a parser, and a
parser that fails takes nothing with it. What could not be judged is unknown, and says why."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

import msgspec

from runtime.errors import Unavailable
from runtime.telemetry import counter
from server.rollbacks.statements.classes import Finding, Migration, StatementClass, Undoing
from server.rollbacks.statements.rules import RULES

SECONDS_MAX = 10.0
AT_ONCE_MAX = 1
WAITING_MAX = 16
"""Releases that wait for their turn; more are told to come again."""
PRIVATE = "RESCIND_"
"""Variables that begin so hold secrets, and are not handed to the parser's process."""
UNREADABLE = "unreadable"

GIVEN = {
    StatementClass.ADDITIVE: Undoing.PREVIOUS,
    StatementClass.NEEDS_BACKFILL: Undoing.PREVIOUS,
    StatementClass.UNKNOWN: Undoing.UNKNOWN,
    StatementClass.DESTRUCTIVE: Undoing.FORWARD,
}

unjudged = counter("rescind.releases.unjudged")


class Classing:
    """Judges. `seconds_max` is for one release."""

    def __init__(self, seconds_max: float = SECONDS_MAX, executable: Sequence[str] = ()) -> None:
        self._seconds_max = seconds_max
        self._command = tuple(executable) or (sys.executable, "-m", "server.rollbacks.statements")
        self._turn = asyncio.Semaphore(AT_ONCE_MAX)
        self._waiting = 0

    async def judge(self, migrations: Sequence[Migration]) -> list[Finding]:
        """The findings, in the order of the statements. What fails of the parser is a finding; `Unavailable`: too many wait."""
        if not migrations:
            return []
        if self._waiting >= WAITING_MAX:
            raise Unavailable("the parser", "too many releases are waiting for it")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._judge(migrations)
        finally:
            self._waiting -= 1

    async def _judge(self, migrations: Sequence[Migration]) -> list[Finding]:
        try:
            async with asyncio.timeout(self._seconds_max):
                return await self._ask(msgspec.json.encode(migrations))
        except TimeoutError:
            return unread(migrations, f"reading it took longer than {self._seconds_max:g} s")
        except (OSError, msgspec.MsgspecError) as error:
            return unread(migrations, f"reading it failed: {error}")

    async def _ask(self, document: bytes) -> list[Finding]:
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if not name.startswith(PRIVATE)},
        )  # fmt: skip
        try:
            answer, _ = await process.communicate(document)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise OSError(f"its process ended with {process.returncode}")
        return msgspec.json.decode(answer, type=list[Finding])


def unread(migrations: Sequence[Migration], why: str) -> list[Finding]:
    """Every migration unknown as a whole."""
    unjudged.add(1)
    return [whole(one.name, UNREADABLE, why) for one in migrations]


def given(migration: str, class_: str) -> Finding:
    """A migration whose class CI gave."""
    statement_class = StatementClass(class_)
    return msgspec.structs.replace(
        whole(migration, "given"), statement_class=statement_class, undoing=GIVEN[statement_class],
        reason=f"given as {class_}, without its text",
    )  # fmt: skip


def whole(migration: str, rule: str, note: str | None = None) -> Finding:
    """A finding about a migration as a whole, whose statements were not judged."""
    held = RULES[rule]
    return Finding(
        migration=migration, line=0, statement="", about=migration, rule=rule, statement_class=held.statement_class,
        undoing=held.undoing, reason=held.reason, note=note,
    )  # fmt: skip
