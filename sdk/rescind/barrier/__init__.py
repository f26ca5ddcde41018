"""The barrier in a participant's own database: its business change and the knowledge of it commit together (P10, P13, P16).

A step's act and its undoing may arrive twice, at once, or in the wrong order: the undoing before the act (there is nothing to
undo, and the act must never happen any more), the act after its undoing (it hung on the way), either one again. Called inside
the participant's own transaction, the barrier lets through exactly one act that no undoing went before, and one undoing of it:

    async with connection.transaction():
        if await barrier.enter(connection, effect, verb="act"):
            await connection.execute("UPDATE stock SET reserved = reserved + $1 WHERE sku = $2", count, sku)

Connections of asyncpg, psycopg 3 and SQLAlchemy, synchronous ones under `enter_sync`; no driver is imported here. It needs
PostgreSQL 9.5. The idea is the sub-transaction barrier of DTM (github.com/dtm-labs/dtm); the form is ours: one row per effect.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any, Literal

from rescind.barrier.drivers import Statement, ask, ask_sync
from rescind.effects import Effect

Verb = Literal["act", "undo"]

_HERE = Path(__file__).parent
TABLE = (_HERE / "table.sql").read_text(encoding="utf-8")
"""The table, for the participant's own migrations; `create_table` lays it down as well."""
_STATEMENTS: dict[Verb, Statement] = {verb: Statement((_HERE / f"{verb}.sql").read_text("utf-8")) for verb in ("act", "undo")}
_TABLE = Statement(TABLE)


class Entry(Enum):
    """What the barrier says; true only for `DO`."""

    DO = "do"
    """Make the change, in this transaction."""
    DONE = "done"
    """It was made by an earlier call; make none, and answer as that one did."""
    NEVER = "never"
    """Of an act: its undoing came first, so raise `rescind.NotDone`. Of an undoing: there is nothing to undo."""

    def __bool__(self) -> bool:
        return self is Entry.DO


async def enter(connection: Any, effect: Effect, *, verb: Verb) -> Entry:
    """Whether to make the change that `verb` stands for; it waits for another transaction that has entered for this effect.

    Where the transaction is rolled back, nothing was entered. Raises `ConfigurationError` outside of a transaction, and what
    the driver raises; under REPEATABLE READ or stricter that may be a serialization failure: try the transaction again.
    """
    return Entry(await ask(connection, _STATEMENTS[verb], effect))


def enter_sync(connection: Any, effect: Effect, *, verb: Verb) -> Entry:
    """The same over a synchronous connection."""
    return Entry(ask_sync(connection, _STATEMENTS[verb], effect))


async def create_table(connection: Any) -> None:
    """Lay down the table where it is not there, in the transaction of `connection`."""
    await ask(connection, _TABLE, None)


def create_table_sync(connection: Any) -> None:
    """The same over a synchronous connection."""
    ask_sync(connection, _TABLE, None)
