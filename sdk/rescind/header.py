"""The revision that travels between services: `rescind-revision: <environment>.<generation>.<n>` (P3).

A hint from outside: whatever does not read as one, is absurd, or names another environment is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rescind.wire import HEADER, Revision

HEADER_BYTES = HEADER.encode()
LENGTH_MAX = 128
VALUES_MAX = 4
AHEAD_MAX = 1_000_000
GENERATIONS_AHEAD_MAX = 1_000
_PATTERN = re.compile(r"([a-z][a-z0-9-]{0,62})\.([0-9]{1,18})\.([0-9]{1,18})", re.ASCII)


def header_value(environment: str, revision: Revision) -> str:
    """What a request or a reply carries.

    >>> header_value("production", Revision(1, 4712))
    'production.1.4712'
    """
    return f"{environment}.{revision.generation}.{revision.n}"


def read_header(values: Iterable[str | bytes], environment: str, current: Revision) -> Revision | None:
    """The latest believable revision of `environment` among the header's values, or None.

    At most four values are looked at, none longer than 128 characters. A revision far ahead of anything `current` could
    have missed is absurd and ignored.
    """
    found: Revision | None = None
    looked = 0
    for value in values:
        start = value[: LENGTH_MAX * VALUES_MAX]
        for part in (start.decode("latin-1") if isinstance(start, bytes) else start).split(","):
            looked += 1
            if looked > VALUES_MAX:
                return found
            revision = read_value(part.strip(), environment)
            if revision and believable(revision, current) and (found is None or revision > found):
                found = revision
    return found


def read_value(text: str, environment: str) -> Revision | None:
    """One value, or None where it is no revision of `environment`."""
    match = _PATTERN.fullmatch(text) if len(text) <= LENGTH_MAX else None
    if match is None or match[1] != environment:
        return None
    return Revision(int(match[2]), int(match[3]))


def believable(revision: Revision, current: Revision) -> bool:
    """Whether `current` can be that far behind. Knowing nothing yet, anything can."""
    if current == Revision():
        return True
    if revision.generation > current.generation + GENERATIONS_AHEAD_MAX:
        return False
    return revision.generation != current.generation or revision.n <= current.n + AHEAD_MAX
