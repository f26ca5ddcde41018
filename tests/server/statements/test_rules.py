"""What each kind of statement is classed as: the table of rules, case by case, and the pairs of expand and contract."""

from __future__ import annotations

import pytest

from server.rollbacks.statements.classes import Migration, worst
from server.rollbacks.statements.judging import judge, judge_each
from server.rollbacks.statements.rules import RULES

ONE = [
    # tables and what stands beside them
    ("CREATE TABLE orders (id bigint PRIMARY KEY)", "additive create"),
    ("CREATE TABLE IF NOT EXISTS orders (id bigint)", "additive create"),
    ("CREATE SCHEMA shop", "additive create"),
    ("CREATE SCHEMA shop CREATE TABLE t (a int)", "unknown other"),
    ("CREATE TYPE mood AS ENUM ('sad')", "additive create"),
    ("CREATE VIEW v AS SELECT 1", "additive create"),
    ("CREATE OR REPLACE VIEW v AS SELECT 1", "unknown replace_view"),
    ("CREATE TABLE t AS SELECT * FROM orders", "additive create"),
    ("CREATE TABLE t AS SELECT archive(o) FROM orders AS o", "unknown calls_function"),
    ("CREATE TABLE t AS EXECUTE p", "unknown other"),
    ("SELECT * INTO t FROM orders", "additive create"),
    ("CREATE EXTENSION hstore", "additive create"),
    ("DROP TABLE orders", "destructive drop_table"),
    ("DROP TABLE IF EXISTS orders CASCADE", "destructive drop_table"),
    ("DROP SCHEMA shop CASCADE", "destructive drop_table"),
    ("DROP VIEW v", "destructive drop_object"),
    ("DROP TYPE shop.mood", "destructive drop_object"),
    ("DROP FUNCTION f(int)", "destructive drop_object"),
    ("DROP TRIGGER t ON orders", "destructive drop_object"),
    ("DROP DATABASE shop", "destructive drop_object"),
    ("DROP OWNED BY shop", "destructive drop_object"),
    ("DROP INDEX orders_by_day", "unknown drop_index"),
    ("ALTER TABLE orders RENAME TO purchases", "destructive rename"),
    ("ALTER TABLE orders RENAME COLUMN note TO remark", "destructive rename"),
    ("ALTER TABLE orders SET SCHEMA shop", "destructive rename"),
    ("ALTER VIEW v RENAME TO w", "destructive rename"),
    ("ALTER TYPE mood RENAME VALUE 'sad' TO 'low'", "destructive rename"),
    ("ALTER TYPE mood ADD VALUE 'glad'", "additive add_enum_value"),
    ("ALTER INDEX a RENAME TO b", "unknown rename_support"),
    ("ALTER TABLE orders RENAME CONSTRAINT a TO b", "unknown rename_support"),
    # columns
    ("ALTER TABLE orders ADD COLUMN note text", "additive add_column"),
    ("ALTER TABLE orders ADD COLUMN IF NOT EXISTS note text", "additive add_column"),
    ("ALTER TABLE orders ADD COLUMN note text DEFAULT NULL", "additive add_column"),
    ("ALTER TABLE orders ADD COLUMN shop int REFERENCES shops", "additive add_column"),
    ("ALTER TABLE orders ADD COLUMN n int CHECK (n > 0)", "additive add_column"),
    ("ALTER TABLE orders ADD COLUMN n int CHECK (n IS NOT NULL)", "destructive add_constraint"),
    ("ALTER TABLE orders ADD COLUMN n int NOT NULL DEFAULT 1 CHECK (n > 0)", "additive add_column_default"),
    ("ALTER TABLE orders ADD COLUMN n int DEFAULT 1 CHECK (total > 0)", "destructive add_constraint"),
    ("ALTER TABLE orders ADD COLUMN n int NOT NULL DEFAULT 0", "additive add_column_default"),
    ("ALTER TABLE orders ADD COLUMN n int NOT NULL DEFAULT -1", "additive add_column_default"),
    ("ALTER TABLE orders ADD COLUMN n text NOT NULL DEFAULT ''::text", "additive add_column_default"),
    ("ALTER TABLE orders ADD COLUMN at timestamptz NOT NULL DEFAULT now()", "additive add_column_default"),
    ("ALTER TABLE orders ADD COLUMN uid uuid NOT NULL DEFAULT gen_random_uuid()", "additive add_column_default"),
    ("ALTER TABLE orders ADD COLUMN id bigserial", "additive add_column_default"),
    ("ALTER TABLE orders ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY", "additive add_column_default"),
    ("ALTER TABLE orders ADD COLUMN n int NOT NULL", "destructive add_column_not_null"),
    ("ALTER TABLE orders ADD COLUMN n int NOT NULL DEFAULT NULL", "destructive add_column_not_null"),
    ("ALTER TABLE orders ADD COLUMN n int PRIMARY KEY", "destructive add_column_not_null"),
    ("ALTER TABLE orders ADD COLUMN n int NOT NULL DEFAULT 0 UNIQUE", "destructive add_column_unique"),
    ("ALTER TABLE orders ALTER COLUMN n SET NOT NULL", "destructive set_not_null"),
    ("ALTER TABLE orders ALTER COLUMN n DROP NOT NULL", "additive drop_not_null"),
    ("ALTER TABLE orders ALTER COLUMN n SET DEFAULT 3", "additive set_default"),
    ("ALTER TABLE orders ALTER COLUMN n DROP DEFAULT", "destructive drop_default"),
    ("ALTER TABLE orders DROP COLUMN note", "destructive drop_column"),
    ("ALTER TABLE orders DROP COLUMN IF EXISTS note", "destructive drop_column"),
    ("ALTER TABLE orders ALTER COLUMN n TYPE bigint", "unknown type_not_known"),
    ("ALTER TABLE orders ALTER COLUMN n TYPE varchar(20)", "unknown type_not_known"),
    ("ALTER TABLE orders ALTER COLUMN n TYPE int USING n::int", "unknown type_not_known"),
    # constraints and indexes
    ("ALTER TABLE orders ADD CONSTRAINT c CHECK (total >= 0) NOT VALID", "destructive add_constraint"),
    ("ALTER TABLE orders ADD CONSTRAINT c FOREIGN KEY (shop) REFERENCES shops", "destructive add_constraint"),
    ("ALTER TABLE orders ADD CONSTRAINT c UNIQUE USING INDEX i", "destructive add_constraint"),
    ("ALTER TABLE orders VALIDATE CONSTRAINT c", "additive validate_constraint"),
    ("ALTER TABLE orders DROP CONSTRAINT c", "destructive drop_constraint"),
    ("CREATE INDEX CONCURRENTLY i ON orders (day)", "additive create_index"),
    ("CREATE INDEX i ON orders (day)", "additive create_index"),
    ("CREATE UNIQUE INDEX i ON orders (number)", "destructive unique_index"),
    # behaviour
    ("CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "unknown create_function"),
    ("CREATE TRIGGER t BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION f()", "unknown create_trigger"),
    ("CREATE RULE r AS ON INSERT TO orders DO INSTEAD NOTHING", "unknown other"),
    ("DO $$ BEGIN DROP TABLE orders; END $$", "unknown do_block"),
    ("SELECT archive_orders()", "unknown calls_function"),
    ("CALL archive_orders()", "unknown calls_function"),
    ("SELECT shop.lower('A')", "unknown calls_function"),
    ("ALTER TABLE orders ENABLE ROW LEVEL SECURITY", "destructive row_security"),
    ("ALTER TABLE orders DISABLE TRIGGER ALL", "unknown other"),
    ("ALTER TABLE orders DETACH PARTITION p", "destructive detach_partition"),
    ("ALTER TABLE orders ATTACH PARTITION p DEFAULT", "unknown other"),
    ("ALTER TABLE orders OWNER TO somebody", "unknown other"),
    ("ALTER SEQUENCE s RESTART", "unknown other"),
    ("GRANT SELECT ON orders TO reader", "additive grant"),
    ("REVOKE SELECT ON orders FROM reader", "destructive revoke"),
    ("EXPLAIN ANALYZE DELETE FROM orders", "unknown other"),
    ("PREPARE p AS DELETE FROM orders", "unknown other"),
    # no change
    ("SET lock_timeout = '1s'", "additive session"),
    ("BEGIN", "additive session"),
    ("ANALYZE orders", "additive storage"),
    ("COMMENT ON TABLE orders IS 'x'", "additive storage"),
    ("ALTER TABLE orders SET (fillfactor = 70)", "additive storage"),
    ("ALTER INDEX i SET (fillfactor = 70)", "additive storage"),
    ("SELECT count(*), upper(max(note)) FROM orders", "additive select"),
    # rows
    ("INSERT INTO plans VALUES (1, 'free')", "additive insert"),
    ("INSERT INTO plans VALUES (1) ON CONFLICT DO NOTHING", "additive insert"),
    ("INSERT INTO plans VALUES (1) ON CONFLICT (id) DO UPDATE SET name = 'x'", "destructive upsert"),
    ("COPY plans FROM '/x'", "additive insert"),
    ("COPY plans FROM PROGRAM 'x'", "unknown calls_function"),
    ("COPY (DELETE FROM orders RETURNING *) TO '/x'", "destructive delete"),
    ("UPDATE orders SET total = total * 100", "destructive update"),
    ("UPDATE orders SET total = 0, tax = 0 WHERE tax IS NULL", "destructive update"),
    ("UPDATE orders SET tax = 0 WHERE tax IS NULL OR total > 3", "destructive update"),
    ("UPDATE orders SET tax = 0 WHERE tax IS NULL AND total > 3", "needs_backfill fill"),
    ("DELETE FROM orders WHERE total = 0", "destructive delete"),
    ("TRUNCATE orders", "destructive truncate"),
    ("MERGE INTO a USING b ON a.x = b.x WHEN MATCHED THEN DELETE", "destructive merge"),
    ("MERGE INTO a USING b ON a.x = b.x WHEN NOT MATCHED THEN INSERT VALUES (1)", "additive insert"),
    # what cannot be read
    ("ALTER TABEL orders ADD COLUMN note text", "unknown unreadable"),
    ("CREATE TABLE a (b int); \\gexec", "unknown unreadable"),
    ("SELECT 1" + " + 1" * 50_000, "unknown unreadable"),
    ("SELECT " + "(" * 100_000, "unknown unreadable"),
]

SEVERAL = [
    # expand: the release that the background tells of, and its contract, a release later
    (
        "ALTER TABLE users ADD COLUMN IF NOT EXISTS name TEXT; UPDATE users SET name = full_name WHERE name IS NULL;",
        ["additive add_column", "needs_backfill fill"],
    ),
    ("ALTER TABLE users ADD name text; UPDATE users SET name = full_name", ["additive add_column", "needs_backfill fill"]),
    ("ALTER TABLE users DROP COLUMN full_name;", ["destructive drop_column"]),
    # a default that is only there for the rows that are there
    (
        "ALTER TABLE a ADD b int NOT NULL DEFAULT 0; ALTER TABLE a ALTER b DROP DEFAULT",
        ["additive add_column_default", "destructive drop_default"],
    ),
    ("ALTER TABLE a ADD b int; ALTER TABLE a ALTER b SET NOT NULL", ["additive add_column", "destructive set_not_null"]),
    # one statement, two commands; one command line, two statements
    ("ALTER TABLE a ADD b int, DROP c", ["additive add_column", "destructive drop_column"]),
    ("WITH gone AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM gone", ["additive insert", "destructive delete"]),
    ("ALTER TABLE a ADD b int DEFAULT next_number()", ["additive add_column_default", "unknown calls_function"]),
    # what the release created itself
    (
        "CREATE TABLE a (b int); DROP TABLE a; DROP TABLE a",
        ["additive create", "additive new_in_release", "destructive drop_table"],
    ),
    ("CREATE TABLE IF NOT EXISTS a (b int); DROP TABLE a", ["additive create", "destructive drop_table"]),
    ("CREATE TABLE IF NOT EXISTS a (b int); CREATE UNIQUE INDEX ON a (b)", ["additive create", "additive new_in_release"]),
    ("CREATE TEMP TABLE a (b int); DELETE FROM a", ["additive create", "destructive delete"]),
    (
        "CREATE TABLE a (b int); SET search_path = c; DROP TABLE a",
        ["additive create", "additive session", "destructive drop_table"],
    ),
    ("CREATE TABLE a (b int); ROLLBACK; TRUNCATE a", ["additive create", "additive session", "destructive truncate"]),
    (
        "CREATE TABLE a (b int); SELECT set_config('search_path', 'c', false); DROP TABLE a",
        ["additive create", "additive select", "destructive drop_table"],
    ),
    ("CREATE TABLE a (b int); DROP TABLE c.a", ["additive create", "destructive drop_table"]),
    ("CREATE TABLE a (b int); DROP TABLE a CASCADE", ["additive create", "destructive drop_table"]),
    ("CREATE TABLE a (b int); TRUNCATE a CASCADE", ["additive create", "destructive truncate"]),
    ("ALTER TABLE a ADD b int; ALTER TABLE a DROP b", ["additive add_column", "additive new_in_release"]),
    ("ALTER TABLE a ADD IF NOT EXISTS b int; ALTER TABLE a DROP b", ["additive add_column", "destructive drop_column"]),
    ("CREATE INDEX i ON a (b); DROP INDEX i", ["additive create_index", "additive new_in_release"]),
    ("CREATE UNIQUE INDEX i ON a (b); DROP INDEX i", ["destructive unique_index", "unknown drop_index"]),
    (
        "CREATE TABLE a (b int); INSERT INTO a VALUES (1); UPDATE a SET b = 2",
        ["additive create", "additive insert", "additive new_in_release"],
    ),
    (
        "CREATE TABLE a (b int); ALTER TABLE a RENAME TO c; DROP TABLE a",
        ["additive create", "additive new_in_release", "destructive drop_table"],
    ),
    # constraints that what came before passes, because it leaves new columns null
    ("ALTER TABLE a ADD b int; CREATE UNIQUE INDEX ON a (c, b)", ["additive add_column", "additive index_on_new_rows"]),
    (
        "ALTER TABLE a ADD b int; CREATE UNIQUE INDEX ON a (b) NULLS NOT DISTINCT",
        ["additive add_column", "destructive unique_index"],
    ),
    ("ALTER TABLE a ADD b int; ALTER TABLE a ADD CHECK (b > 0)", ["additive add_column", "additive constraint_on_new_column"]),
    ("ALTER TABLE a ADD b int; ALTER TABLE a ADD CHECK (b IS NOT NULL)", ["additive add_column", "destructive add_constraint"]),
    ("ALTER TABLE a ADD b int; ALTER TABLE a ADD CHECK (b > c)", ["additive add_column", "destructive add_constraint"]),
    (
        "ALTER TABLE a ADD b int DEFAULT 0; ALTER TABLE a ADD UNIQUE (b)",
        ["additive add_column_default", "destructive add_constraint"],
    ),
    (
        "ALTER TABLE a ADD b int; ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES c",
        ["additive add_column", "additive constraint_on_new_column"],
    ),
    (
        "ALTER TABLE a ADD b text NOT NULL DEFAULT 'x'; CREATE UNIQUE INDEX ON a (c) WHERE b = 'y'",
        ["additive add_column_default", "additive index_on_new_rows"],
    ),
    (
        "ALTER TABLE a ADD b text NOT NULL DEFAULT 'x'; CREATE UNIQUE INDEX ON a (c) WHERE b = 'x'",
        ["additive add_column_default", "destructive unique_index"],
    ),
    (
        "ALTER TABLE a ADD b bool DEFAULT false; CREATE UNIQUE INDEX ON a (c) WHERE b",
        ["additive add_column_default", "additive index_on_new_rows"],
    ),
]

TYPES = [
    ("varchar(10)", "varchar(20)", "additive widen_type"),
    ("varchar(10)", "text", "additive widen_type"),
    ("text", "varchar", "additive widen_type"),
    ("int", "bigint", "additive widen_type"),
    ("smallint", "int", "additive widen_type"),
    ("serial", "bigint", "additive widen_type"),
    ("real", "double precision", "additive widen_type"),
    ("numeric(8, 2)", "numeric(12, 2)", "additive widen_type"),
    ("numeric(8, 2)", "numeric", "additive widen_type"),
    ("int", "int", "additive widen_type"),
    ("varchar(20)", "varchar(10)", "destructive narrow_type"),
    ("text", "varchar(10)", "destructive narrow_type"),
    ("bigint", "int", "destructive narrow_type"),
    ("numeric", "numeric(8, 2)", "destructive narrow_type"),
    ("numeric(8, 2)", "numeric(10, 4)", "destructive change_type"),
    ("int", "text", "destructive change_type"),
    ("timestamp", "timestamptz", "destructive change_type"),
    ("int[]", "bigint[]", "destructive change_type"),
    ("int", "bigint USING a * 100", "destructive change_type"),
]


def classed(sql: str) -> list[str]:
    return [f"{one.statement_class} {one.rule}" for one in judge([Migration(name="m", sql=sql)])]


@pytest.mark.parametrize(("sql", "expected"), ONE, ids=[sql[:60] for sql, _ in ONE])
def test_a_statement_is_of_the_class_that_its_rule_says(sql: str, expected: str) -> None:
    assert classed(sql) == [expected]


@pytest.mark.parametrize(("sql", "expected"), SEVERAL, ids=[sql[:80] for sql, _ in SEVERAL])
def test_statements_are_judged_by_what_came_before_them(sql: str, expected: list[str]) -> None:
    assert classed(sql) == expected


@pytest.mark.parametrize(("before", "after", "expected"), TYPES)
def test_a_change_of_type_is_judged_by_the_type_that_earlier_migrations_tell(before: str, after: str, expected: str) -> None:
    created = Migration(name="1", sql=f"CREATE TABLE t (a {before})")
    changed = Migration(name="2", sql=f"ALTER TABLE t ALTER COLUMN a TYPE {after}")
    (found,) = judge([changed], before=[created])
    assert f"{found.statement_class} {found.rule}" == expected
    assert [f"{one.statement_class} {one.rule}" for one in judge_each([created, changed])][1:] == [expected]
    assert judge([created, changed])[1].rule == "new_in_release"


def test_every_rule_has_a_case() -> None:
    told = {expected.split()[1] for _, expected in ONE} | {one.split()[1] for _, all_ in SEVERAL for one in all_}
    assert {*RULES} - told - {expected.split()[1] for *_, expected in TYPES} == {"given"}, (
        "a class that CI gives: test_releases"
    )


def test_a_finding_names_the_line_past_blanks_and_comments() -> None:
    sql = "-- ü: a first line\n\nBEGIN;\n/* one /* inside */ another */\n  ALTER TABLE a\n    DROP b;\n-- last\n"
    assert [(one.line, one.about) for one in judge([Migration(name="m", sql=sql)])] == [(3, ""), (5, "a.b")]


def test_what_cannot_be_read_names_the_line_and_judges_nothing_of_its_file() -> None:
    read, unread = Migration(name="1", sql="ALTER TABLE a ADD b int"), Migration(name="2", sql="DROP TABLE a;\n\nDROP TABEL b")
    found = judge([read, unread])
    assert [(one.migration, one.line, one.rule) for one in found] == [("1", 1, "add_column"), ("2", 3, "unreadable")]
    assert "TABEL" in (found[1].note or "")


def test_after_what_cannot_be_read_nothing_is_taken_for_new() -> None:
    found = judge(
        [
            Migration(name="1", sql="CREATE TABLE a (b int)"),
            Migration(name="2", sql="oops"),
            Migration(name="3", sql="DROP TABLE a"),
        ]
    )
    assert [one.rule for one in found] == ["create", "unreadable", "drop_table"]


def test_locks_are_said_beside_the_class() -> None:
    sql = "CREATE INDEX i ON a (b); CREATE INDEX CONCURRENTLY j ON a (b); ALTER TABLE a ADD c uuid DEFAULT gen_random_uuid()"
    notes = [one.note or "" for one in judge([Migration(name="m", sql=sql)])]
    assert ["CONCURRENTLY" in notes[0], notes[1], "rewrites the table" in notes[2]] == [True, "", True]


def test_the_worst_class_stands_for_all() -> None:
    assert str(worst([])) == "additive"
    assert str(worst(one.statement_class for one in judge([Migration(name="m", sql="DO $$$$; SELECT 1")]))) == "unknown"
