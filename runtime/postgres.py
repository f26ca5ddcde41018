"""PostgreSQL over asyncpg: connections without a reset query, explicit transactions, and two honest errors.

`Unavailable` says that nothing was done and to come again (`Refused`: once it is mended). `OutcomeUnknown` says that a COMMIT
was sent and its answer was lost, late or qualified: the connection is dropped and nobody is told that it stands (hazard 6).
Transactions are READ COMMITTED in so many words, whatever the database's default is (hazard 10).

A connection is handed back as it is: whoever changes its session (SET without LOCAL, LISTEN, session locks) takes a
`dedicated` one. Behind pgbouncer in transaction mode set its `max_prepared_statements`: statements are prepared and kept.

A URL may name several hosts: whichever is the primary is connected to, after a promotion too (`runtime.hosts`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import asyncpg
import msgspec
from asyncpg.exceptions import TargetServerAttributeNotMatched

from runtime.errors import OutcomeUnknown, Refused, Unavailable
from runtime.hosts import Hosts
from runtime.sealing import NO_KEYS, Ring

CONNECT_SECONDS = 5.0
ACQUIRE_SECONDS = 10.0
URGENT_SECONDS = 0.1
COMMAND_SECONDS = 30.0
ROLLBACK_SECONDS = 5.0
CLOSE_SECONDS = 5.0
WAIT_STEP_SECONDS = 0.1
WAIT_NOTICE_SECONDS = 5.0
BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"

log = logging.getLogger("rescind.postgres")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,  # a primary that has become a standby
    TargetServerAttributeNotMatched,  # no host is the primary yet
)
UNUSABLE = (asyncpg.InternalClientError, asyncpg.InterfaceError, OSError)
"""What a connection says that was cut: of its last word too, which it may have heard before it knows that it is closed."""


NEXT_STEPS = {
    asyncpg.InvalidCatalogNameError: "Create the database (`createdb`), or mend RESCIND_DATABASE_URL",
    asyncpg.InvalidPasswordError: "Mend the user or the password in RESCIND_DATABASE_URL",
    asyncpg.InvalidAuthorizationSpecificationError: "Mend the user in RESCIND_DATABASE_URL, or let it in (pg_hba.conf)",
}
OTHER_STEP = "See PostgreSQL's log, and mend RESCIND_DATABASE_URL"


class Connection(asyncpg.Connection):  # type: ignore[misc]
    """asyncpg's connection, released without a round trip of its own. `ring`: what its caller's payloads are sealed with."""

    ring: Ring = NO_KEYS

    def get_reset_query(self) -> str:
        """Return nothing: a reset query on every release is one transaction more for each of ours."""
        return ""


async def _prepare(connection: Connection, ring: Ring = NO_KEYS) -> None:
    """json and jsonb travel as Python objects."""
    connection.ring = ring
    await connection.set_type_codec("json", schema="pg_catalog", format="binary", encoder=_encode, decoder=_decode)
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + _encode(value),
        decoder=lambda data: _decode(data[1:]),
    )


@contextlib.contextmanager
def _translated(connection: Connection | None = None) -> Iterator[None]:
    """Turn what means "the database is away" into `Unavailable`; without a connection yet, everything of the network does,
    and what PostgreSQL itself says is `Refused`."""
    try:
        yield
    except AWAY as error:
        raise Unavailable("PostgreSQL", str(error)) from error
    except TimeoutError as error:
        raise Unavailable("PostgreSQL", "no answer in time") from error
    except asyncpg.PostgresError as error:
        if connection is None:
            raise Refused("PostgreSQL", f"{error}. {NEXT_STEPS.get(type(error), OTHER_STEP)}") from error
        raise
    except UNUSABLE as error:
        if connection is None or lost(connection):
            raise Unavailable("PostgreSQL", str(error)) from error
        if isinstance(error, asyncpg.InternalClientError):
            drop(connection)
            raise Unavailable("PostgreSQL", str(error)) from error
        raise


async def connect(url: str, *, application_name: str, command_seconds: float | None = None, ring: Ring = NO_KEYS) -> Connection:
    """Return a connection of the caller's own, with our codecs. Raises `Unavailable`, of which `Refused` is one."""
    with _translated():
        connection: Connection = await Hosts(url).connect(**_options(application_name, command_seconds))
        await _prepare(connection, ring)
        return connection


def _options(application_name: str, command_seconds: float | None) -> dict[str, Any]:
    return {
        "timeout": CONNECT_SECONDS,
        "command_timeout": command_seconds,
        "connection_class": Connection,
        "server_settings": {"application_name": application_name, "jit": "off", "timezone": "UTC"},
    }


class Postgres:
    """A pool of connections to one database."""

    def __init__(self, url: str, application_name: str, pool: asyncpg.Pool, ring: Ring = NO_KEYS) -> None:
        self._ring = ring
        self.url = url
        self.application_name = application_name
        self._pool = pool

    @classmethod
    async def open(
        cls, url: str, *, application_name: str, size_max: int = 10, wait_seconds: float = 60.0, ring: Ring = NO_KEYS
    ) -> Postgres:
        """Return a pool once the database answers; until then wait, and say so. Raises `Unavailable` after `wait_seconds`,
        `Refused` at once."""
        begun = time.monotonic()
        noticed = -WAIT_NOTICE_SECONDS
        while True:
            try:
                return cls(url, application_name, await cls._create(url, application_name, size_max, ring), ring)
            except Refused:
                raise
            except Unavailable as error:
                waited = time.monotonic() - begun
                if waited >= wait_seconds:
                    raise
                if waited - noticed >= WAIT_NOTICE_SECONDS:
                    noticed = waited
                    log.warning("waiting for PostgreSQL (%.0f of %.0f s): %s", waited, wait_seconds, error.detail)
                await asyncio.sleep(WAIT_STEP_SECONDS)

    @staticmethod
    async def _create(url: str, application_name: str, size_max: int, ring: Ring) -> asyncpg.Pool:
        with _translated():
            pool = await asyncpg.create_pool(
                url,
                min_size=0,  # one kept open is reopened in the background, with a traceback in the log for each failure
                max_size=size_max,
                max_queries=10_000_000,
                init=partial(_prepare, ring=ring),
                connect=Hosts(url).connect,
                **_options(application_name, COMMAND_SECONDS),
            )
            async with pool.acquire(timeout=ACQUIRE_SECONDS):
                return pool

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection in autocommit mode. Raises `Unavailable`, from the body too when the database goes away.

        A `TimeoutError` in the body counts as no answer from the database.
        """
        with _translated():
            connection = await self._pool.acquire(timeout=ACQUIRE_SECONDS)
        try:
            with _translated(connection):
                yield connection
        finally:
            with _translated():
                await self._pool.release(connection)

    @contextlib.asynccontextmanager
    async def urgent(self) -> AsyncIterator[Connection]:
        """`connection` for what may not queue: where none is free within `URGENT_SECONDS`, one beside the pool."""
        try:
            with _translated():
                connection = await self._pool.acquire(timeout=URGENT_SECONDS)
        except Unavailable:
            connection, release = await self.dedicated(), Connection.close
        else:
            release = self._pool.release
        try:
            with _translated(connection):
                yield connection
        finally:
            with _translated():
                await release(connection)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection inside one READ COMMITTED transaction: committed at the end, rolled back on any exception.

        Raises `Unavailable` (nothing was done) and `OutcomeUnknown` (nobody knows). For a savepoint use `savepoint`.
        """
        async with self.connection() as connection:
            async with transaction_on(connection):
                yield connection

    async def dedicated(self) -> Connection:
        """Return a connection outside the pool; the caller closes it. Raises `Unavailable`."""
        return await connect(self.url, application_name=self.application_name, ring=self._ring)

    async def close(self) -> None:
        """Close every connection; those still lent are cut off after `CLOSE_SECONDS`."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()


@contextlib.asynccontextmanager
async def transaction_on(connection: Connection, first: str = "") -> AsyncIterator[None]:
    """`Postgres.transaction` on a connection one has. It is terminated where its state is not known.

    `first`: statements to send along with BEGIN, in one round trip; each has a snapshot of its own.
    """
    with _translated(connection):
        try:
            await connection.execute(f"{BEGIN}; {first}")
            yield
        except BaseException:
            await _roll_back(connection)
            raise
        await _commit(connection)


@contextlib.asynccontextmanager
async def savepoint(connection: Connection) -> AsyncIterator[None]:
    """Undo what the body did if it raises, and leave the transaction around it usable."""
    await connection.execute("SAVEPOINT rescind")
    try:
        yield
    except Exception:
        await connection.execute("ROLLBACK TO SAVEPOINT rescind")
        await connection.execute("RELEASE SAVEPOINT rescind")
        raise
    await connection.execute("RELEASE SAVEPOINT rescind")


def lost(connection: Connection) -> bool:
    """Whether the connection is gone; one from a pool then belongs to the pool again."""
    try:
        closed: bool = connection.is_closed()
    except asyncpg.InterfaceError:
        return True
    return closed


def drop(connection: Connection) -> None:
    """End a connection whose state is not known. One that was lost has left its pool already, which is as good."""
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _roll_back(connection: Connection) -> None:
    """Roll back, or drop the connection, which comes to the same."""
    try:
        await connection.execute("ROLLBACK", timeout=ROLLBACK_SECONDS)
    except asyncio.CancelledError:
        drop(connection)
        raise
    except (asyncpg.PostgresError, *UNUSABLE, TimeoutError):
        drop(connection)


async def _commit(connection: Connection) -> None:
    """Commit. Raises `OutcomeUnknown` unless PostgreSQL has said, without a warning, that it stands."""
    warnings: list[str] = []

    def note(_: object, message: Any) -> None:
        if message.severity_en in {"WARNING", "ERROR"}:
            warnings.append(str(message))

    connection.add_log_listener(note)
    try:
        tag = await connection.execute("COMMIT")
    except asyncpg.IntegrityConstraintViolationError:
        raise  # a deferred constraint: PostgreSQL has rolled back and said so
    except asyncio.CancelledError:
        drop(connection)
        raise
    except (asyncpg.PostgresError, *UNUSABLE, TimeoutError) as error:
        drop(connection)
        raise OutcomeUnknown(f"the answer to COMMIT was lost: {error}") from error
    finally:
        with contextlib.suppress(asyncpg.InterfaceError):
            connection.remove_log_listener(note)
    if warnings:
        drop(connection)
        raise OutcomeUnknown(f"COMMIT came with a warning: {warnings[0]}")
    if tag != "COMMIT":
        raise asyncpg.InFailedSQLTransactionError("an error was swallowed inside the transaction: PostgreSQL rolled it back")
