"""What cannot be stored: found with its place before PostgreSQL is asked, and refused without one after."""

import doctest
import logging
from datetime import UTC, datetime, timedelta, timezone

import asyncpg
import pytest
from msgspec import Struct

import runtime.storable
from runtime.postgres import Postgres
from runtime.problem import UNSTORABLE, problem_of
from runtime.storable import FAULTS_MAX, INSTANT_MAX, INSTANT_MIN, instant_faults, nul_faults


class Asked(Struct):
    at: datetime | None
    name: str = "x"


def test_examples():
    assert doctest.testmod(runtime.storable).failed == 0


def test_every_nul_is_found_with_its_place():
    document = {"a/b": ["x", {"c": "\0"}], "d": {"e\0": 1}, "f": 3}
    assert sorted(fault.pointer for fault in nul_faults(document)) == ["/a~1b/1/c", "/d"]


def test_an_escaped_backslash_before_u0000_is_no_nul():
    assert nul_faults({"a": "\\u0000"}, b'{"a": "\\\\u0000"}') == []


def test_a_document_nested_as_deep_as_it_likes_is_walked_and_its_faults_are_bounded():
    deep: object = "\0"
    for _ in range(5_000):
        deep = [deep]
    assert len(nul_faults(deep)) == 1
    assert len(nul_faults(["\0"] * 1_000)) == FAULTS_MAX


@pytest.mark.parametrize("at", [INSTANT_MIN, INSTANT_MAX, INSTANT_MIN.replace(tzinfo=None), None])
def test_instants_within_the_bounds_are_kept(at):
    assert instant_faults(Asked(at)) == []


@pytest.mark.parametrize(
    "at",
    [
        INSTANT_MIN - timedelta(seconds=1),
        INSTANT_MAX + timedelta(seconds=1),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
        datetime.fromisoformat("0001-01-01T00:00:00"),
    ],
)
def test_an_instant_beyond_them_is_named(at):
    assert [fault.pointer for fault in instant_faults(Asked(at))] == ["/at"]


REFUSED = [
    ("SELECT $1::text", "a\0", "NUL"),
    ("SELECT $1::text[]", ["a\0"], "NUL"),
    ("SELECT $1::jsonb", {"a": "\0"}, "NUL"),
    ("SELECT $1::text", "\ud800", "range"),
    ("SELECT $1::bigint", 2**63, "range"),
    ("SELECT $1::bigint::int", 2**31, "range"),
    ("SELECT $1::timestamptz", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), "range"),
    ("SELECT $1::timestamptz + interval '300000 years'", datetime(2026, 1, 1, tzinfo=UTC), "range"),
]


@pytest.mark.parametrize(("query", "value", "word"), REFUSED)
async def test_what_postgresql_refuses_is_the_requests_fault(pg: Postgres, caplog, query: str, value: object, word: str):
    with caplog.at_level(logging.WARNING, "rescind.problem"):
        async with pg.connection() as connection:
            with pytest.raises(asyncpg.PostgresError) as caught:
                await connection.fetchval(query, value)
        problem = problem_of(caught.value)
    assert (problem.status, problem.code) == (422, "invalid")
    assert word in problem.detail
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_any_other_error_of_postgresql_is_ours(pg: Postgres):
    for query in ("SELECT 1 / 0", "SELECT 'x'::int", "SELECT nothing"):
        async with pg.connection() as connection:
            with pytest.raises(asyncpg.PostgresError) as caught:
                await connection.fetchval(query)
        assert caught.value.sqlstate not in UNSTORABLE
        assert problem_of(caught.value).status == 500
