"""The record of a walk through a targeting, under construction: bounded, and quiet inside of loops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rescind.evaluation.explanation import FINDINGS_MAX, FOUND_MAX, Finding, Split, name_of, shown
from rescind.evaluation.faults import Path, pointer_of


class Draft:
    """An operation that is being carried out."""

    def __init__(self, path: Path, operator: str) -> None:
        self.path = path
        self.operator = operator
        self.value: Any = None
        self.found: dict[str, Any] = {}
        self.operand: int | None = None
        self.split: Split | None = None
        self.inside: list[Draft] = []

    def finished(self) -> Finding:
        """The finding as it has become."""
        return Finding(
            pointer=pointer_of(self.path),
            operator=self.operator,
            value=shown(self.value),
            found=self.found,
            operand=self.operand,
            split=self.split,
            findings=[draft.finished() for draft in self.inside],
        )


class Trace:
    """Collects findings. `quiet` while a loop goes over its items."""

    def __init__(self) -> None:
        self._root = Draft(None, "")
        self._open = [self._root]
        self._count = 0
        self._quiet = 0
        self.truncated = False

    @property
    def findings(self) -> list[Finding]:
        """What was recorded, in the order in which it was carried out."""
        return [draft.finished() for draft in self._root.inside]

    @contextmanager
    def operation(self, path: Path, operator: str) -> Iterator[Draft]:
        """An operation around its operands. Beyond the limit it is carried out and not recorded."""
        draft = Draft(path, operator)
        if not self._quiet:
            self._count += 1
            self.truncated = self.truncated or self._count > FINDINGS_MAX
            if self._count <= FINDINGS_MAX:
                self._open[-1].inside.append(draft)
        self._open.append(draft)
        try:
            yield draft
        finally:
            self._open.pop()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Record nothing meanwhile."""
        self._quiet += 1
        try:
            yield
        finally:
            self._quiet -= 1

    def read(self, name: Any, value: Any) -> None:
        """Note an attribute that the operation under way has read."""
        found = self._open[-1].found
        if not self._quiet and len(found) < FOUND_MAX:
            found[name_of(name)] = shown(value)
