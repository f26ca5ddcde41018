"""The table of rules against PostgreSQL itself: behind what is classed additive, an artifact that knows nothing of it reads and
writes as before; behind each of these destructive ones it does not."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from runtime.postgres import Connection, connect
from server.rollbacks.statements.classes import Migration, StatementClass, worst
from server.rollbacks.statements.judging import judge

BEFORE = """
CREATE TABLE shops (id int PRIMARY KEY);
CREATE TYPE mood AS ENUM ('sad');
CREATE TABLE orders (
    id bigint PRIMARY KEY, note varchar(30), total int NOT NULL DEFAULT 0, number int CONSTRAINT one_number UNIQUE, how mood
);
INSERT INTO shops VALUES (1);
INSERT INTO orders SELECT n, 'ring ' || n, -n, n, 'sad' FROM generate_series(1, 5) AS n;
"""
ARTIFACT = """
INSERT INTO orders (id) VALUES (10), (11);
INSERT INTO orders (id, note, total, number) VALUES (12, NULL, -7, 12), (13, 'a note of twenty letters', 2147483647, 13);
INSERT INTO orders (id, number) VALUES (14, 12) ON CONFLICT (number) DO NOTHING;
UPDATE orders SET note = 'changed', how = NULL WHERE id = 1;
DELETE FROM orders WHERE id = 2
"""
READS = "SELECT id, note, total, number, how FROM orders ORDER BY id"

SAFE = [
    "CREATE TABLE plans (id int); CREATE UNIQUE INDEX ON plans (id); INSERT INTO plans VALUES (1)",
    "ALTER TABLE orders ADD COLUMN shop int",
    "ALTER TABLE orders ADD COLUMN shop int REFERENCES shops",
    "ALTER TABLE orders ADD COLUMN shop int UNIQUE CHECK (shop > 0)",
    "ALTER TABLE orders ADD COLUMN shop int NOT NULL DEFAULT 1",
    "ALTER TABLE orders ADD COLUMN shop int NOT NULL DEFAULT 1 CHECK (shop > 0) REFERENCES shops",
    "ALTER TABLE orders ADD COLUMN at timestamptz NOT NULL DEFAULT now()",
    "ALTER TABLE orders ADD COLUMN uid uuid NOT NULL UNIQUE DEFAULT gen_random_uuid()",
    "ALTER TABLE orders ADD COLUMN serial_number bigserial",
    "ALTER TABLE orders ADD COLUMN line int GENERATED ALWAYS AS IDENTITY",
    "ALTER TABLE orders ADD COLUMN remark text; UPDATE orders SET remark = note",
    "ALTER TABLE orders ADD COLUMN IF NOT EXISTS remark text; UPDATE orders SET remark = note WHERE remark IS NULL",
    "ALTER TABLE orders ADD shop int; ALTER TABLE orders ADD CHECK (shop > 0)",
    "ALTER TABLE orders ADD shop int; ALTER TABLE orders ADD FOREIGN KEY (shop) REFERENCES shops",
    "ALTER TABLE orders ADD shop int; CREATE UNIQUE INDEX ON orders (total, shop)",
    "ALTER TABLE orders ADD shop int; ALTER TABLE orders ADD UNIQUE (total, shop)",
    "ALTER TABLE orders ADD kind text NOT NULL DEFAULT 'x'; CREATE UNIQUE INDEX ON orders (total) WHERE kind = 'y'",
    "ALTER TABLE orders ADD late boolean NOT NULL DEFAULT false; CREATE UNIQUE INDEX ON orders (how) WHERE late",
    "ALTER TABLE orders ADD shop int; ALTER TABLE orders DROP shop",
    "CREATE INDEX ON orders (total)",
    "ALTER TABLE orders ALTER COLUMN total DROP NOT NULL",
    "ALTER TABLE orders ALTER COLUMN number SET DEFAULT NULL",
    "ALTER TABLE orders SET (fillfactor = 70)",
    "ALTER TYPE mood ADD VALUE 'glad'",
    "COMMENT ON TABLE orders IS 'x'",
    "ALTER TABLE orders ALTER COLUMN note TYPE varchar(60)",
    "ALTER TABLE orders ALTER COLUMN note TYPE text",
    "ALTER TABLE orders ALTER COLUMN total TYPE bigint",
]
UNSAFE = [
    "ALTER TABLE orders DROP COLUMN note",
    "DROP TABLE orders",
    "ALTER TABLE orders RENAME COLUMN note TO remark",
    "ALTER TABLE orders RENAME TO purchases",
    "ALTER TABLE orders SET SCHEMA pg_temp",
    "ALTER TABLE orders ADD COLUMN shop int NOT NULL",
    "ALTER TABLE orders ADD COLUMN shop int DEFAULT 1 UNIQUE",
    "ALTER TABLE orders ADD COLUMN shop int NOT NULL DEFAULT 1; ALTER TABLE orders ALTER COLUMN shop DROP DEFAULT",
    "ALTER TABLE orders ALTER COLUMN number SET NOT NULL",
    "ALTER TABLE orders ALTER COLUMN total DROP DEFAULT",
    "ALTER TABLE orders ALTER COLUMN note TYPE varchar(20)",
    "ALTER TABLE orders ALTER COLUMN total TYPE smallint",
    "ALTER TABLE orders ALTER COLUMN total TYPE bigint USING total * 100",
    "ALTER TABLE orders ADD CHECK (total < 100)",
    "ALTER TABLE orders ADD CHECK (total < 100) NOT VALID",
    "ALTER TABLE orders ADD COLUMN shop int DEFAULT 1 CHECK (total < 100)",
    "ALTER TABLE orders ADD shop int; ALTER TABLE orders ADD CHECK (shop IS NOT NULL) NOT VALID",
    "ALTER TABLE orders ADD shop int; CREATE UNIQUE INDEX ON orders (shop) NULLS NOT DISTINCT WHERE id > 5",
    "ALTER TABLE orders ADD kind text NOT NULL DEFAULT 'x'; CREATE UNIQUE INDEX ON orders (kind) WHERE kind = 'x' AND id > 5",
    "CREATE UNIQUE INDEX ON orders (total) WHERE id > 5",
    "ALTER TABLE orders DROP CONSTRAINT one_number",
    "UPDATE orders SET total = total * 100",
    "DELETE FROM orders WHERE total < 0",
    "TRUNCATE orders",
    "ALTER TYPE mood RENAME VALUE 'sad' TO 'low'",
]


def classed(sql: str) -> StatementClass:
    found = judge([Migration(name="m", sql=sql)], before=[Migration(name="before", sql=BEFORE)])
    return worst(one.statement_class for one in found)


async def lives(url: str, *statements: str) -> list[tuple[Any, ...]] | str:
    """What the old artifact reads at first, and after it wrote, behind these statements; or why it cannot."""
    connection: Connection = await connect(url, application_name="tests")
    await connection.execute("BEGIN")
    try:
        for statement in (BEFORE, *statements):
            await connection.execute(statement)
        first = [tuple(row) for row in await connection.fetch(READS)]
        await connection.execute(ARTIFACT)
        return [*first, *(tuple(row) for row in await connection.fetch(READS))]
    except asyncpg.PostgresError as error:
        return str(error)
    finally:
        await connection.execute("ROLLBACK")
        await connection.close()


@pytest.mark.parametrize("sql", SAFE)
async def test_behind_what_is_additive_the_previous_artifact_goes_on(database_url: str, sql: str) -> None:
    assert classed(sql) in (StatementClass.ADDITIVE, StatementClass.NEEDS_BACKFILL)
    found = await lives(database_url, sql)
    assert isinstance(found, list), found
    assert found == await lives(database_url)


@pytest.mark.parametrize("sql", UNSAFE)
async def test_behind_what_is_destructive_it_does_not(database_url: str, sql: str) -> None:
    assert classed(sql) is StatementClass.DESTRUCTIVE
    alone = await lives(database_url)
    assert isinstance(alone, list), alone
    assert await lives(database_url, sql) != alone
