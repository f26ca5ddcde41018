"""Definitions of sagas and loose kinds: the documents, their check, and where they are kept, pinned by version (P15)."""

from sagas.definitions.check import check, parse
from sagas.definitions.document import (
    Compensation,
    Definition,
    Email,
    KindDefinition,
    Pace,
    Refund,
    Retry,
    SagaDefinition,
    StepDefinition,
    Webhook,
    Worker,
    encode,
    semantics_hash,
)

__all__ = [
    "Compensation",
    "Definition",
    "Email",
    "KindDefinition",
    "Pace",
    "Refund",
    "Retry",
    "SagaDefinition",
    "StepDefinition",
    "Webhook",
    "Worker",
    "check",
    "encode",
    "parse",
    "semantics_hash",
]
