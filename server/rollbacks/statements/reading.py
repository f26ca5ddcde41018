"""SQL as statements: the text through PostgreSQL's own grammar (libpg_query, by pgparse)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pgparse

Body = dict[str, Any]
EXCERPT_MAX = 120


class Unreadable(Exception):  # noqa: N818 - what it is
    """The grammar, or its limits, refuse the text. `line` is where it stopped."""

    def __init__(self, line: int, detail: str) -> None:
        super().__init__(f"line {line}: {detail}")
        self.line = line
        self.detail = detail


class Statement(NamedTuple):
    """One statement: its kind as the grammar names it (`AlterTableStmt`), its tree, where it begins, and how."""

    tag: str
    body: Body
    line: int
    excerpt: str


def statements_of(sql: str) -> list[Statement]:
    """The statements of a text, in its order. Raises `Unreadable`."""
    try:
        parsed = pgparse.parse(sql)
    except pgparse.PGQueryError as error:
        raise Unreadable(sql[: max(0, error.position - 1)].count("\n") + 1, error.message) from None
    except (RecursionError, UnicodeEncodeError, MemoryError) as error:
        raise Unreadable(1, f"{type(error).__name__}: {error}") from None
    raw = sql.encode()
    return [_statement(raw, item) for item in parsed if item.get("stmt")]


def _statement(raw: bytes, item: Body) -> Statement:
    begin = item.get("stmt_location", 0)
    end = begin + item["stmt_len"] if item.get("stmt_len") else len(raw)
    begin = after_comments(raw, begin)
    ((tag, body),) = item["stmt"].items()
    text = " ".join(raw[begin:end].decode(errors="replace").split())
    excerpt = text if len(text) <= EXCERPT_MAX else text[: EXCERPT_MAX - 1] + "…"
    return Statement(tag, body, line_at(raw, begin), excerpt)


def after_comments(raw: bytes, at: int) -> int:
    """Where the first word is, behind blanks and comments (those of PostgreSQL nest).

    >>> after_comments(b"-- a /* b\\n /* c /* d */ */ SELECT", 0)
    27
    """
    while at < len(raw):
        if raw[at : at + 1].isspace():
            at += 1
        elif raw.startswith(b"--", at):
            end = raw.find(b"\n", at)
            at = len(raw) if end < 0 else end
        elif raw.startswith(b"/*", at):
            at = _after_block(raw, at)
        else:
            return at
    return at


def _after_block(raw: bytes, at: int) -> int:
    depth = 0
    while at < len(raw):
        if raw.startswith(b"/*", at):
            depth, at = depth + 1, at + 2
        elif raw.startswith(b"*/", at):
            depth, at = depth - 1, at + 2
            if depth == 0:
                break
        else:
            at += 1
    return at


def line_at(raw: bytes, at: int) -> int:
    """The line of a byte, from 1."""
    return raw.count(b"\n", 0, at) + 1


def nodes_of(value: object) -> Iterator[tuple[str, Body]]:
    """Every node below, with its kind, in no order. Without recursion: expressions nest deeply."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            for name, child in one.items():
                if name[:1].isupper() and isinstance(child, dict):
                    yield name, child
                waiting.append(child)


def strings_of(items: object) -> list[str]:
    """The names of a list of String nodes, the last one being the object's own."""
    given = items if isinstance(items, list) else []
    return [one["String"].get("sval", "") for one in given if isinstance(one, dict) and "String" in one]
