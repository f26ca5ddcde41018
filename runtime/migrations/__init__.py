"""Migrations: SQL files of each room, applied once, in order, each in a transaction of its own (P21).

A room's folder holds `NNNN_pre_*.sql` (additive, before the new code runs) and `NNNN_post_*.sql` (destructive, a release
later). Every file is idempotent, and never edited once released: the ledger `runtime.migrations` keeps its checksum. Servers
that start side by side take turns through an advisory lock.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import asyncpg
from msgspec import Struct

from runtime.errors import MigrationError
from runtime.postgres import BEGIN, Connection, connect
from runtime.queries import Queries

Phase = Literal["pre", "post"]
NAME = re.compile(r"(\d{4})_(pre|post)_[a-z0-9_]+\.sql")
QUERIES = Queries.load("runtime", "migrations")


class Migration(Struct, frozen=True, kw_only=True):
    """One file of a room. `room` is the name of the folder above `migrations`."""

    room: str
    file: str
    phase: Phase
    checksum: str
    sql: str

    def __str__(self) -> str:
        return f"{self.room}/{self.file}"


class Applied(Struct, frozen=True, kw_only=True):
    """A file that has just been applied, and how long it took."""

    room: str
    file: str
    seconds: float


def read(rooms: Sequence[Path]) -> list[Migration]:
    """Return every migration: `pre` of all rooms before any `post`, rooms as given, files by number.

    Raises `MigrationError` for a name out of the pattern or a number given twice in a room.
    """
    found = [migration for room in rooms for migration in _read_room(room)]
    return sorted(found, key=lambda migration: migration.phase == "post")


def _read_room(room: Path) -> list[Migration]:
    migrations: dict[str, Migration] = {}
    for path in sorted(room.glob("*.sql")):
        match = NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path}: a migration is named NNNN_pre_words.sql or NNNN_post_words.sql")
        number, phase = match.groups()
        if number in migrations:
            raise MigrationError(f"{path}: the number {number} is taken by {migrations[number].file}")
        text = path.read_text(encoding="utf-8")
        migrations[number] = Migration(
            room=room.parent.name,
            file=path.name,
            phase="pre" if phase == "pre" else "post",
            checksum=hashlib.sha256(text.encode()).hexdigest(),
            sql=text,
        )
    return list(migrations.values())


async def migrate(url: str, rooms: Sequence[Path], phase: Phase | None = None) -> list[Applied]:
    """Apply what is pending, of one phase or of both, and return it. Twice is a no-op.

    Raises `MigrationError` for an applied file that was edited or one that PostgreSQL refuses, `Unavailable` when it is away.
    """
    migrations = read(rooms)
    connection = await connect(url, application_name="rescind migrate")
    try:
        await connection.execute(QUERIES.lock)
        await connection.execute(QUERIES.create_schema)
        await connection.execute(QUERIES.create_ledger)
        todo = await _unapplied(connection, migrations)
        return [await _apply(connection, migration) for migration in todo if phase in (None, migration.phase)]
    finally:
        await connection.close()  # and with it the lock


async def pending(url: str, rooms: Sequence[Path], phase: Phase | None = None) -> list[Migration]:
    """Return what `migrate` would apply, and change nothing. Raises as `migrate` does."""
    migrations = read(rooms)
    connection = await connect(url, application_name="rescind migrate --check")
    try:
        todo = migrations
        if await connection.fetchval(QUERIES.ledger_exists):
            todo = await _unapplied(connection, migrations)
        return [migration for migration in todo if phase in (None, migration.phase)]
    finally:
        await connection.close()


async def _unapplied(connection: Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """Return those that the ledger does not know. Raises `MigrationError` where a checksum differs."""
    applied = {(row["room"], row["file"]): row["checksum"] for row in await connection.fetch(QUERIES.applied)}
    for migration in migrations:
        known = applied.get((migration.room, migration.file), migration.checksum)
        if known != migration.checksum:
            raise MigrationError(
                f"{migration} was edited after it had been applied (applied {known[:12]}, now {migration.checksum[:12]}). "
                "Put the file back as it was released, and write what is new in a migration with the next number."
            )
    return [migration for migration in migrations if (migration.room, migration.file) not in applied]


async def _apply(connection: Connection, migration: Migration) -> Applied:
    begun = time.monotonic()
    await connection.execute(BEGIN)
    try:
        await connection.execute(QUERIES.limit_lock_wait)
        await connection.execute(migration.sql)
        await connection.execute(QUERIES.record, migration.room, migration.file, migration.checksum)
        await connection.execute("COMMIT")
    except asyncpg.PostgresError as error:
        raise MigrationError(f"{migration} was refused by PostgreSQL, nothing of it was applied: {error}") from error
    return Applied(room=migration.room, file=migration.file, seconds=time.monotonic() - begun)
