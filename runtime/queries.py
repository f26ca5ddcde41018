"""SQL in files of its own: `<package>/sql/<file>.sql` holds named queries, each under a line `-- name: admit_effects`.

    QUERIES = Queries.load("flagd", "flags")
    await connection.fetchrow(QUERIES.flag_by_key, environment, key)

The text of a query is handed to PostgreSQL as it stands; a test prepares every one against the migrated schema.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterator, Sequence

HEADER = re.compile(r"^--\s*name:\s*([a-z][a-z0-9_]*)\s*$", re.MULTILINE)


class Queries:
    """The queries of one file, by attribute or by key."""

    def __init__(self, origin: str, queries: dict[str, str]) -> None:
        self.origin = origin
        self._queries = queries

    @classmethod
    def load(cls, package: str, file: str) -> Queries:
        """Read `<package>/sql/<file>.sql`. Raises `FileNotFoundError`, or `ValueError` for a name given twice.

        `package` may be dotted: `server.rollbacks`.
        """
        origin = f"{package}/sql/{file}.sql"
        text = importlib.resources.files(package).joinpath("sql", f"{file}.sql").read_text(encoding="utf-8")
        return cls(origin, parse(text, origin))

    def __getattr__(self, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._queries[name]
        except KeyError:
            raise AttributeError(f"{self.origin} has no query named {name!r}") from None

    def __getitem__(self, name: str) -> str:
        return self._queries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def items(self) -> Iterator[tuple[str, str]]:
        """Yield each name with its text, in the order of the file."""
        yield from self._queries.items()


def parse(text: str, origin: str) -> dict[str, str]:
    """Return the queries of a file's text by name. What stands before the first header is the file's comment.

    >>> parse("-- name: one\\nSELECT 1;\\n", "x.sql")
    {'one': 'SELECT 1'}
    """
    _, *parts = HEADER.split(text)
    queries: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        if name in queries:
            raise ValueError(f"{origin}: two queries are named {name!r}")
        queries[name] = body.strip().removesuffix(";")
    return queries


def all_queries(packages: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield (origin, name, text) for every query in the `sql` folders of the packages; one without such a folder has none."""
    for package in packages:
        folder = importlib.resources.files(package).joinpath("sql")
        if not folder.is_dir():
            continue
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if file.name.endswith(".sql"):
                queries = Queries.load(package, file.name.removesuffix(".sql"))
                for name, text in queries.items():
                    yield queries.origin, name, text
