"""Off variants for a request that could not catch up with what it has seen: reason STALE, never a guess (P3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rescind.evaluation import Evaluator, Explanation, Resolution


class OffVariants:
    """Answers like an evaluator, each flag with its off variant."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self.revision: Any = evaluator.revision
        self.served: Mapping[str, Any] = {}

    def boolean(self, key: str, default: bool, context: Mapping[str, Any] | None = None) -> bool:
        """The off variant's value; the default for an unknown flag or a variant that is no boolean."""
        return bool(self._evaluator.off(key, default, "boolean").value)

    def evaluate(self, key: str, context: Mapping[str, Any] | None, default: Any, kind: str = "any") -> Resolution:
        """The off variant with reason STALE."""
        return self._evaluator.off(key, default, kind)

    def explain(self, key: str, context: Mapping[str, Any] | None = None) -> Explanation:
        """That it is the off variant, whatever the context."""
        return self._evaluator.off_explained(key)
