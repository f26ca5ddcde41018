"""Fences: the row per flag by which admission knows its epoch (P8).

Written in the very transactions that create, kill and lift a flag, so that a fence and its flag never disagree.
"""

from __future__ import annotations

from collections.abc import Sequence

from asyncpg import Connection

from runtime.queries import Queries

QUERIES = Queries.load("sagas", "fences")


async def ensure(connection: Connection, environment: str, flags: Sequence[tuple[str, str]]) -> None:
    """Give each flag (key, off variant) its fence, open at epoch 1, or its new off variant while it is not killed.

    To be called in the transaction that puts the flags.
    """
    keys = [key for key, _ in flags]
    await connection.execute(QUERIES.ensure, environment, keys, [off_variant for _, off_variant in flags])


async def let_proceed(connection: Connection, environment: str, flags: Sequence[str]) -> None:
    """Effects of these flags may be begun without the server from now on: their rollbacks wait for whoever may hold records.

    To be called in the transaction that puts the flags, after `ensure`.
    """
    await connection.execute(QUERIES.let_proceed, environment, list(flags))
