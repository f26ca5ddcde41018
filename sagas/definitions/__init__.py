"""Definitions of sagas and loose kinds: the documents, their check, and where they are kept, pinned by version (P15)."""

from sagas.definitions.check import check, parse
from sagas.definitions.document import (
    Act,
    Compensation,
    Definition,
    Email,
    KindDefinition,
    Pace,
    Refund,
    Retry,
    SagaDefinition,
    StepDefinition,
    Wait,
    Webhook,
    Worker,
    encode,
    semantics_hash,
)
from sagas.definitions.plans import plan_of

__all__ = [
    "Act",
    "Compensation",
    "Definition",
    "Email",
    "KindDefinition",
    "Pace",
    "Refund",
    "Retry",
    "SagaDefinition",
    "StepDefinition",
    "Wait",
    "Webhook",
    "Worker",
    "check",
    "encode",
    "parse",
    "plan_of",
    "semantics_hash",
]
