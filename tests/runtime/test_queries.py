"""Named SQL files."""

import doctest

import pytest

import runtime.queries
from runtime.queries import Queries, parse


def test_queries_are_found_by_attribute_and_by_key():
    queries = Queries.load("runtime", "tokens")
    assert queries.create_token == queries["create_token"]
    assert queries.create_token.startswith("INSERT INTO runtime.tokens")
    assert "create_token" in list(queries)


def test_a_query_that_is_not_there_is_named():
    with pytest.raises(AttributeError, match=r"runtime/sql/tokens.sql has no query named 'creat'"):
        _ = Queries.load("runtime", "tokens").creat


def test_a_name_given_twice_is_refused():
    with pytest.raises(ValueError, match="two queries are named 'a'"):
        parse("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;\n", "x.sql")


def test_comments_before_the_first_header_belong_to_the_file():
    assert parse("-- What this is.\n\n-- name: a\n-- Why.\nSELECT 1;\n", "x.sql") == {"a": "-- Why.\nSELECT 1"}


def test_the_examples_hold():
    assert doctest.testmod(runtime.queries).failed == 0
