"""Processes that end at a chosen write: just before it, or just after.

A write is a COMMIT of something, a statement by itself that changes something, or an act of the provider. They are counted over
all processes, in the order in which they come, which a seed decides; `Fate` deals one crash.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Literal

import asyncpg

from runtime.errors import Unavailable
from runtime.postgres import Connection, Postgres, connect

WRITES = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM)\b")
POOL_MAX = 4
CONNECT_TRIES_MAX = 5
Side = Literal["before", "after"]


class Fate:
    """The crash of one run: at the write of that number, from one on, before or after it; none where `at` is zero.

    `twist`: a piece of the servers' SQL, and what is said instead: a mutant, which the judge has to find.
    """

    def __init__(self, at: int = 0, side: Side = "before", twist: tuple[str, str] | None = None) -> None:
        self.at = at
        self.side: Side = side
        self.twist = twist or ("", "")
        self.twisted = 0
        self.writes: list[str] = []

    def said(self, query: str) -> str:
        """What is said instead of it."""
        piece, instead = self.twist
        if not piece or piece not in query:
            return query
        self.twisted += 1
        return query.replace(piece, instead)

    def write(self, process: str) -> Side | None:
        """Somebody is about to write. What they meet."""
        self.writes.append(process)
        return self.side if len(self.writes) == self.at else None


class Process:
    """What may end. `is_dead`: nothing of it reaches anybody any more."""

    def __init__(self, name: str, fate: Fate) -> None:
        self.name = name
        self.fate = fate
        self.is_dead = False


class Line(Connection):
    """A connection of a process."""

    process: ClassVar[Process]
    has_written = False

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        said = self.process.fate.said(query)
        return await self._said(query, lambda: super(Line, self).execute(said, *args, timeout=timeout))

    async def fetch(self, query: str, *args: Any, **more: Any) -> Any:
        said = self.process.fate.said(query)
        return await self._said(query, lambda: super(Line, self).fetch(said, *args, **more))

    async def fetchval(self, query: str, *args: Any, **more: Any) -> Any:
        said = self.process.fate.said(query)
        return await self._said(query, lambda: super(Line, self).fetchval(said, *args, **more))

    async def fetchrow(self, query: str, *args: Any, **more: Any) -> Any:
        said = self.process.fate.said(query)
        return await self._said(query, lambda: super(Line, self).fetchrow(said, *args, **more))

    async def _said(self, query: str, say: Callable[[], Awaitable[Any]]) -> Any:
        if self.process.is_dead:
            self._cut()
        met = self.process.fate.write(self.process.name) if self._is_write(query) else None
        if met == "before":
            self._cut()
        answer = await say()
        if met == "after":
            self._cut()
        return answer

    def _is_write(self, query: str) -> bool:
        """Whether something stands after it that did not before."""
        if query == "COMMIT":
            return self.has_written
        if query.startswith("BEGIN"):
            self.has_written = False
            return False
        writes = WRITES.search(query) is not None
        self.has_written |= writes
        return writes and not self.is_in_transaction()

    def _cut(self) -> None:
        self.process.is_dead = True
        self.terminate()
        raise asyncpg.ConnectionDoesNotExistError("the process has ended")


class Reached(Postgres):
    """The database as a process reaches it, for as long as it lives."""

    def __init__(self, url: str, process: Process) -> None:
        self._line: type[Line] = type("Line", (Line,), {"process": process})
        pool = asyncpg.create_pool(url, min_size=0, max_size=POOL_MAX, connect=self._connect)
        super().__init__(url, process.name, pool)

    async def open_pool(self) -> None:
        """Before anything else."""
        await self._pool

    async def dedicated(self) -> Connection:
        """Return a line beside the pool."""
        return await self._connect()

    async def end(self) -> None:
        """What is left of it is cut off."""
        self._line.process.is_dead = True
        self._pool.terminate()

    async def _connect(self, *_: Any, **__: Any) -> Connection:
        if self._line.process.is_dead:
            raise asyncpg.ConnectionDoesNotExistError("the process has ended")
        connection = await _connected(self.url, self.application_name)
        connection.__class__ = self._line
        return connection


async def _connected(url: str, name: str) -> Connection:
    """A connection, however busy this machine is."""
    for _ in range(CONNECT_TRIES_MAX):
        with contextlib.suppress(Unavailable):
            return await connect(url, application_name=name)
    return await connect(url, application_name=name)
