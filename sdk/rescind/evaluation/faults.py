"""Collecting the faults of a document, each with its RFC 6901 JSON pointer."""

from __future__ import annotations

from typing import Any, Final

from rescind.evaluation.errors import Fault, FaultCode
from rescind.evaluation.limits import FAULTS_MAX

Path = tuple[Any, Any] | None
"""Where one is in a document: the path above, and the key or index below it. Rendered only when there is a fault."""


def pointer_of(path: Path) -> str:
    """RFC 6901: `~` is `~0`, `/` is `~1`."""
    tokens: list[str] = []
    while path is not None:
        path, token = path
        tokens.append("/" + str(token)[:255].replace("~", "~0").replace("/", "~1"))
    return "".join(reversed(tokens))


_SHOWN_MAX: Final = 60


class Faults:
    """What is wrong with a document. Stops counting at `FAULTS_MAX`, and says so."""

    def __init__(self, pointer: str) -> None:
        self._pointer = pointer
        self.found: list[Fault] = []

    @property
    def full(self) -> bool:
        return len(self.found) > FAULTS_MAX

    def add(self, path: Path, code: FaultCode, detail: str) -> None:
        """Note one fault at `path`."""
        if len(self.found) < FAULTS_MAX:
            self.found.append(Fault(self._pointer + pointer_of(path), detail, code))
        elif not self.full:
            self.found.append(Fault(self._pointer, f"more than {FAULTS_MAX} faults", FaultCode.TOO_MANY_FAULTS))


def shown(value: object) -> str:
    """A value in a message: short, and never more than its beginning."""
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN_MAX else value[:_SHOWN_MAX] + "...")
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 64):
        return {"None": "null", "True": "true", "False": "false"}.get(repr(value), repr(value))
    return {dict: "an object", list: "a list", int: "a number"}.get(type(value), "no JSON value")
