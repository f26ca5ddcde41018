"""flagd's own core in Python, the oracle of what a definition means, and both evaluators' answers in one form."""

from __future__ import annotations

import json
import logging
from typing import Any

from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError
from rescind.evaluation import Resolution

DEFAULT = "the caller's"

Answer = tuple[str | None, Any]
"""(variant, value); (None, `DEFAULT`) where no variant was decided, for whatever reason."""

logging.getLogger("openfeature.contrib").setLevel(logging.CRITICAL)


def context_of(attributes: dict[str, Any], user: str | None) -> dict[str, Any]:
    """The context as our evaluator takes it."""
    return attributes if user is None else {**attributes, "targetingKey": user}


def answer_of(outcome: Resolution) -> Answer:
    """Our evaluator's answer."""
    return outcome.variant, outcome.value


def oracle_answer(document: dict[str, Any], key: str, attributes: dict[str, Any], user: str | None) -> Answer:
    """flagd's answer for a document of its own format."""
    core = FlagdCore()
    core.set_flags(json.dumps(document))
    context = EvaluationContext(targeting_key=user, attributes=attributes)
    try:
        found = core._resolve(key, DEFAULT, context)
    except OpenFeatureError:
        return None, DEFAULT
    return found.variant, found.value
