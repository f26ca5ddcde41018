"""What the names, documents and revisions that come in may be, in the words of a fault. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rescind.wire import Fault, Revision

from sagas.core import keys

TEXT_BYTES_MAX = 512
"""Of every name: as UTF-8, for that is what the limits of an index entry count."""


def texts(named: Iterable[tuple[str, str | None]]) -> Iterator[Fault]:
    """The faults of names, each with its JSON pointer.

    >>> [fault.code for fault in texts([("/key", "x" * 513), ("/kind", None), ("/flag", "a")])]
    ['too_long']
    """
    for pointer, text in named:
        if text is not None and len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES_MAX:
            yield Fault(pointer=pointer, detail=f"is longer than {TEXT_BYTES_MAX} bytes of UTF-8", code="too_long")
        if text is not None and "\0" in text:
            yield Fault(pointer=pointer, detail="holds a NUL character", code="nul")


def sizes(named: Iterable[tuple[str, bytes, int]]) -> Iterator[Fault]:
    """The faults of documents as JSON, each with its pointer and the bytes that it may have."""
    for pointer, text, limit in named:
        if len(text) > limit:
            yield Fault(pointer=pointer, detail=f"is larger than {limit} bytes of JSON", code="too_large")
        if keys.holds_nul(text):
            yield Fault(pointer=pointer, detail="holds a NUL character", code="nul")


def revision(value: Revision | str | int, faults: list[Fault]) -> tuple[int, int]:
    """Generation and number; what is wrong with it is added to `faults`."""
    try:
        read = Revision.of(value)
    except ValueError as error:
        faults.append(Fault(pointer="/revision", detail=str(error), code="invalid"))
        return 0, 0
    if not (0 <= read.generation < 2**63 and 0 <= read.n < 2**63):
        faults.append(Fault(pointer="/revision", detail="is out of range", code="range"))
    return read.generation, read.n
