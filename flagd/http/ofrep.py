"""OpenFeature Remote Evaluation Protocol 0.3.0: one flag for one context, answered from the compiled snapshot (P6, P7).

The hot path: token from memory, one look-up, one call, one short answer; no lock, no I/O, nothing awaited but the body.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from rescind.evaluation import Resolution

from flagd.http import gate
from flagd.http.gate import Receive, Scope, Send
from flagd.replica import Replica, Replicas
from runtime.problem import Problem, problem_of, send_problem, suggest
from runtime.tokens import Principal, Verifier, bearer

PREFIX = "/ofrep/v1/evaluate/flags/"
SCOPE = "evaluate"
SUGGESTIONS_MAX = 2_000

_REASONS = {"STATIC": "STATIC", "TARGETING_MATCH": "TARGETING_MATCH", "SPLIT": "SPLIT", "DISABLED": "DISABLED"}
"""OFREP has no others for a success: everything else is UNKNOWN."""


class Request(Struct, frozen=True):
    """`context` with its targeting key, which has to be a text where it is given."""

    context: dict[str, Any]


class Success(Struct, frozen=True, omit_defaults=True):
    """`serverEvaluationSuccess`; without `value` the caller uses its own default."""

    key: str
    reason: str
    variant: str | UnsetType = UNSET
    value: Any = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET


class Failure(Struct, frozen=True, rename="camel"):
    """`evaluationFailure` and `flagNotFound`."""

    key: str
    error_code: str
    error_details: str


_read = msgspec.json.Decoder(Request).decode
_write = msgspec.json.Encoder().encode


class OfrepApp:
    """`POST /ofrep/v1/evaluate/flags/{key}`. The token names the environment; an admin's names it in a header."""

    def __init__(self, replicas: Replicas, verifier: Verifier) -> None:
        self._replicas = replicas
        self._verifier = verifier

    @staticmethod
    def matches(path: str) -> bool:
        """Whether this application answers the path."""
        return path.startswith(PREFIX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = scope["path"][len(PREFIX) :]
        try:
            status, body = await self._answer(key, scope, receive)
        except Exception as error:  # the boundary: whatever happens becomes an answer
            problem = problem_of(error)
            if problem.status == 500:
                await gate.reply(send, 500, _write({"errorDetails": problem.detail}), gate.JSON)
            else:
                await send_problem(send, problem)
        else:
            await gate.reply(send, status, body, gate.JSON)

    async def _answer(self, key: str, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        if scope["method"] != "POST":
            raise gate.wrong_method("POST")
        principal = await gate.authenticate(self._verifier, bearer(scope["headers"]))
        environment = principal.environment or _named(scope, principal)
        if not principal.allows(SCOPE, environment):
            principal.require(SCOPE, environment)
        replica = self._replicas.held(environment) or await self._replicas.get(environment)
        body = await gate.read_body(scope, receive)
        try:
            context = _read(body).context
        except msgspec.ValidationError as error:
            return 400, _write(Failure(key, "INVALID_CONTEXT", str(error)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return 400, _write(Failure(key, "PARSE_ERROR", "The body is not JSON, or nested too deeply."))
        if not isinstance(context.get("targetingKey", ""), str):
            return 400, _write(Failure(key, "INVALID_CONTEXT", "targetingKey is not a text"))
        if key not in replica.snapshot.flags:
            return 404, _write(Failure(key, "FLAG_NOT_FOUND", _not_found(key, replica)))
        return _encode(key, replica.evaluator.evaluate(key, context, UNSET))


def _named(scope: Scope, principal: Principal) -> str:
    named = gate.text_header(scope, b"x-rescind-environment")
    if named:
        return named
    detail = f"Token {principal.name} is for every environment: name one in the header X-Rescind-Environment."
    raise Problem(400, "environment_missing", "No environment", detail)


def _encode(key: str, outcome: Resolution) -> tuple[int, bytes]:
    if outcome.error_code is not None and outcome.variant is None:
        return 400, _write(Failure(key, outcome.error_code, outcome.error_details or "The flag could not be evaluated."))
    return 200, _write(
        Success(
            key=key,
            reason=_REASONS.get(outcome.reason, "UNKNOWN"),
            variant=UNSET if outcome.variant is None else outcome.variant,
            value=UNSET if outcome.variant is None else outcome.value,
            metadata=dict(outcome.metadata) if outcome.metadata else UNSET,
        )
    )


def _not_found(key: str, replica: Replica) -> str:
    flags = replica.snapshot.flags
    near = suggest(key[:255], list(flags)) if len(flags) <= SUGGESTIONS_MAX else None
    hint = f" Did you mean '{near}'?" if near else ""
    return f"Flag '{key[:255]}' was not found in environment {replica.environment}.{hint}"
