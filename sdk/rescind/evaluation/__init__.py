"""The one evaluator of Rescind, for SDK and server: the same flag, revision and context give the same variant (P7).

Flags are in the OpenFeature flagd definition format. `check` and `check_document` say everything that is wrong with a
definition before it is accepted; `Evaluator` evaluates a snapshot of accepted ones and never raises (P6). Pure: no I/O,
no state that changes, and no clock: `$flagd.timestamp` is what the caller says it is.
"""

from rescind.evaluation.bucketing import GENERATIONS, Generation, moved
from rescind.evaluation.check import check
from rescind.evaluation.document import check_document
from rescind.evaluation.errors import EvaluationError, Fault, FaultCode, RuleError, UnreadableError
from rescind.evaluation.explain import FlagSet, explain
from rescind.evaluation.explanation import Decided, Explanation, Finding, KillSeen, Rule, Split
from rescind.evaluation.kills import KILLED, FlagSpec, Kill, in_scope
from rescind.evaluation.logic import apply
from rescind.evaluation.resolution import ErrorCode, Kind, Reason, Resolution
from rescind.evaluation.snapshot import Evaluator

__all__ = [
    "GENERATIONS",
    "KILLED",
    "Decided",
    "ErrorCode",
    "EvaluationError",
    "Evaluator",
    "Explanation",
    "Fault",
    "FaultCode",
    "Finding",
    "FlagSet",
    "FlagSpec",
    "Generation",
    "Kill",
    "KillSeen",
    "Kind",
    "Reason",
    "Resolution",
    "Rule",
    "RuleError",
    "Split",
    "UnreadableError",
    "apply",
    "check",
    "check_document",
    "explain",
    "in_scope",
    "moved",
]
