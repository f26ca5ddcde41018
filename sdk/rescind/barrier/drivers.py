"""How each driver is asked: its way to write parameters, to fetch one value, and to say whether a transaction is open.

A driver is known by where its classes come from; it is imported only by whoever hands over one of its connections.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from msgspec import Struct

from rescind.effects import Effect
from rescind.errors import ConfigurationError

IDLE = 0
"""psycopg's and libpq's word for a connection without a transaction (PQTRANS_IDLE)."""


class Statement(Struct, frozen=True):
    """One statement with `:effect` and `:attempt`."""

    text: str

    @property
    def numbered(self) -> str:
        """For asyncpg."""
        return self.text.replace(":effect", "$1").replace(":attempt", "$2")

    @property
    def formatted(self) -> str:
        """For psycopg."""
        return self.text.replace(":effect", "%(effect)s").replace(":attempt", "%(attempt)s")


async def ask(connection: Any, statement: Statement, effect: Effect | None) -> Any:
    """The one value that the statement gives, or None. Raises `ConfigurationError` where it cannot work."""
    driver = driver_of(connection)
    if driver == "asyncpg":
        check_transaction(connection.is_in_transaction())
        return await connection.fetchval(statement.numbered, *parameters_of(effect).values())
    if not inspect.iscoroutinefunction(connection.execute):
        raise ConfigurationError("a synchronous connection goes with the calls that end in _sync")
    if driver == "psycopg":
        check_transaction(is_open_psycopg(connection))
        async with connection.cursor(row_factory=tuples()) as cursor:
            await cursor.execute(statement.formatted, parameters_of(effect))
            return first_of(await cursor.fetchone() if cursor.description else None)
    check_transaction(is_open_sqlalchemy(connection.sync_connection))
    result = await connection.execute(sqlalchemy_text(statement), parameters_of(effect))
    return result.scalar() if result.returns_rows else None


def ask_sync(connection: Any, statement: Statement, effect: Effect | None) -> Any:
    """The same over a synchronous connection."""
    driver = driver_of(connection)
    if driver == "asyncpg" or inspect.iscoroutinefunction(connection.execute):
        raise ConfigurationError("an asynchronous connection goes with the calls that are awaited")
    if driver == "psycopg":
        check_transaction(is_open_psycopg(connection))
        with connection.cursor(row_factory=tuples()) as cursor:
            cursor.execute(statement.formatted, parameters_of(effect))
            return first_of(cursor.fetchone() if cursor.description else None)
    check_transaction(is_open_sqlalchemy(connection))
    result = connection.execute(sqlalchemy_text(statement), parameters_of(effect))
    return result.scalar() if result.returns_rows else None


def driver_of(connection: Any) -> str:
    """`asyncpg`, `psycopg` or `sqlalchemy`. Raises `ConfigurationError` for anything else, a session among it."""
    origins = {kind.__module__.partition(".")[0] for kind in type(connection).__mro__}
    found = origins & {"asyncpg", "psycopg", "sqlalchemy"}
    if not found or not hasattr(connection, "execute"):
        raise ConfigurationError(f"{type(connection).__name__} is no connection of asyncpg, psycopg 3 or SQLAlchemy")
    if found == {"sqlalchemy"} and not hasattr(connection, "exec_driver_sql"):
        raise ConfigurationError("of a SQLAlchemy session, hand over `session.connection()`")
    return found.pop()


def parameters_of(effect: Effect | None) -> dict[str, Any]:
    """What the statements are given."""
    return {} if effect is None else {"effect": effect.id, "attempt": effect.attempt}


def check_transaction(is_open: bool) -> None:
    """Without a transaction around both, the barrier and the change would not commit together."""
    if not is_open:
        raise ConfigurationError("the barrier is entered inside the transaction that makes the change")


def is_open_psycopg(connection: Any) -> bool:
    """Whether what is executed next stands in a transaction."""
    return not connection.autocommit or connection.info.transaction_status != IDLE


def is_open_sqlalchemy(connection: Any) -> bool:
    """Its transactions begin by themselves, unless the connection is in autocommit."""
    return not getattr(connection.connection.dbapi_connection, "autocommit", False)


def sqlalchemy_text(statement: Statement) -> Any:
    """The statement as SQLAlchemy takes it."""
    return import_module("sqlalchemy").text(statement.text)


def tuples() -> Callable[..., Any]:
    """Rows as tuples, whatever the connection gives."""
    rows: Callable[..., Any] = import_module("psycopg.rows").tuple_row
    return rows


def first_of(row: tuple[Any, ...] | None) -> Any:
    """The value of a row that has one."""
    return None if row is None else row[0]
