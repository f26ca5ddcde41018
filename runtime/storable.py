"""What PostgreSQL can keep of what people send: found before it is asked, with the place (RFC 6901).

Neither text nor jsonb holds the character NUL; of instants the ends of the calendar mean "infinity" to it, and beyond them
there is nothing. Whatever is not found here PostgreSQL refuses, and `runtime.problem` says so without a place.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from runtime.problem import Fault

FAULTS_MAX = 100
INSTANT_MIN = datetime(1970, 1, 1, tzinfo=UTC)
INSTANT_MAX = datetime(9000, 1, 1, tzinfo=UTC)
INTEGER_MAX = 2**63 - 1


def nul_faults(document: object, body: bytes = b"\0") -> list[Fault]:
    """One fault per text of the document that holds a NUL. `body`, from which it was read, quickly says that it holds none.

    >>> nul_faults({"reason": "a\\0", "scope": {"b": 1}}, b'{"reason": "a\\\\u0000", "scope": {"b": 1}}')[0].pointer
    '/reason'
    """
    if b"\\u0000" not in body and b"\0" not in body:
        return []
    found = (Fault(pointer=at, code="nul", detail="holds a NUL character, which cannot be stored") for at in _places(document))
    return [fault for fault, _ in zip(found, range(FAULTS_MAX), strict=False)]


def is_storable(instant: datetime) -> bool:
    """Whether it is an instant that can be kept and told again; one without a zone is taken as UTC."""
    aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return INSTANT_MIN <= aware <= INSTANT_MAX


def instant_faults(document: Struct) -> list[Fault]:
    """One fault per instant among the fields of what was read that cannot be kept."""
    detail = f"is not between {INSTANT_MIN:%Y-%m-%d} and {INSTANT_MAX:%Y-%m-%d}"
    return [
        Fault(pointer=f"/{name}", code="range", detail=detail)
        for name in document.__struct_fields__
        if isinstance(value := getattr(document, name), datetime) and not is_storable(value)
    ]


def _places(document: object) -> Iterator[str]:
    """Without recursion: a document may be nested as deep as it can be read. A key that holds one counts at its object."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        at, value = waiting.pop()
        match value:
            case str() if "\0" in value:
                yield at
            case list():
                waiting += [(f"{at}/{index}", child) for index, child in enumerate(value)]
            case dict():
                if any("\0" in str(key) for key in value):
                    yield at
                waiting += [(f"{at}/{_escaped(key)}", child) for key, child in value.items()]


def _escaped(key: object) -> str:
    return str(key).replace("~", "~0").replace("/", "~1").replace("\0", "")
