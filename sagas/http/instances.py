"""Saga instances over HTTP: start, await, see, decide (P19, P20)."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Meta, Struct
from rescind.wire import Fault, InstanceAwait, InstanceStarted, InstanceStartRequest

from runtime.errors import Code
from runtime.postgres import Postgres
from runtime.problem import Problem
from runtime.right import Right
from runtime.tokens import Principal
from sagas.http.bodies import REASON_MAX, AnyRequest, answer, read, read_checked
from sagas.http.environments import Environments
from sagas.instances import listing
from sagas.instances.service import Instances
from sagas.instances.turns import Heard

START_SCOPE = "effects"
VERB_SCOPE = "compensate"
Reason = Annotated[str, Meta(min_length=1, max_length=REASON_MAX)]
STATUSES = {"conflict": 409, "killed": 409, "invalid": 422}


class VerbRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a decision. `step`: the step (or wait) that `retry` and `skip` are about."""

    reason: Reason
    step: Annotated[str, Meta(max_length=128)] = ""


class EventRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An event. `event_id`: the same one sent twice counts once."""

    payload: Any = None
    event_id: Annotated[str, Meta(min_length=1, max_length=255)] | None = None


class ApprovalRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person's word on an approval that is, or will be, waited for."""

    approve: bool
    reason: Reason


class InstanceController(Controller):
    """Instances of a saga."""

    path = "/v1/environments/{environment:str}/sagas/{saga:str}"
    tags = ["instances"]

    @post("/instances", status_code=200, summary="Start an instance")
    async def start_one(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        saga: FromPath[str],
        instances: NamedDependency[Instances],
        environments: NamedDependency[Environments],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """`started` or `exists`; 409 for an id taken by something else and for a killed flag, 422 for what cannot begin."""
        principal.require(START_SCOPE, environment)
        await environments.require(environment)
        one = await read_checked(request, dict[str, Any])
        [result] = (await instances.start(environment, saga, InstanceStartRequest(instances=[one]), principal)).results
        if result.outcome in STATUSES:
            raise _not_started(result)
        return answer(request, result)

    @post("/instances:start", status_code=200, summary="Start instances")
    async def start(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        saga: FromPath[str],
        instances: NamedDependency[Instances],
        environments: NamedDependency[Environments],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """One result per instance, in order; one bad item never fails the batch. With `claim`, their first steps as tasks."""
        principal.require(START_SCOPE, environment)
        await environments.require(environment)
        return answer(request, await instances.start(environment, saga, await read(request, InstanceStartRequest), principal))

    @post("/instances:await", status_code=200, summary="Wait for instances")
    async def wait(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        saga: FromPath[str],
        instances: NamedDependency[Instances],
        principal: NamedDependency[Principal],
        right: NamedDependency[Right],
    ) -> Response[bytes]:
        """Those that have ended or wait for a person, as soon as there is one."""
        principal.require(START_SCOPE, environment)
        return answer(request, await instances.wait(environment, saga, await read(request, InstanceAwait), principal, right))

    @get("/instances/{instance:str}", summary="Read an instance")
    async def read_one(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        saga: FromPath[str],
        instance: FromPath[str],
        pg: NamedDependency[Postgres],
        instances: NamedDependency[Instances],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """Where it stands, its steps with attempts, times and errors, what it waits for, and its history with who and why."""
        principal.require("read", environment)
        row = await instances.find(environment, saga, instance)
        async with pg.connection() as connection:
            return answer(request, await listing.whole(connection, row))

    @post("/instances/{instance:str}/events/{event:str}", status_code=200, summary="Tell an instance of an event")
    async def event(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        saga: FromPath[str],
        instance: FromPath[str],
        event: FromPath[str],
        instances: NamedDependency[Instances],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """Before or while it is waited for. `changed` false: it was known, or nothing waits for it any more."""
        principal.require(START_SCOPE, environment)
        told = await read_checked(request, EventRequest)
        heard = await instances.event(
            environment, saga, instance, event, payload=told.payload, event_id=told.event_id, principal=principal
        )
        return answer(request, _heard(instance, "event", heard))

    @post("/instances/{instance:str}/approvals/{approval:str}", status_code=200, summary="Approve or refuse")
    async def approve(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        saga: FromPath[str],
        instance: FromPath[str],
        approval: FromPath[str],
        instances: NamedDependency[Instances],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """The first word stands: `changed` says whether it was this one."""
        principal.require(VERB_SCOPE, environment)
        told = await read_checked(request, ApprovalRequest)
        heard = await instances.approval(
            environment, saga, instance, approval, approve=told.approve, principal=principal, reason=told.reason
        )
        return answer(request, _heard(instance, "approve" if told.approve else "refuse", heard))

    @post("/instances/{instance:str}/{verb:str}", status_code=200, summary="Decide on an instance")
    async def decide(
        self,
        request: AnyRequest,
        environment: FromPath[str],
        saga: FromPath[str],
        instance: FromPath[str],
        verb: FromPath[str],
        instances: NamedDependency[Instances],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        """cancel, pause, resume, retry, skip. `changed` false: it stood already, or cannot be where the instance stands."""
        principal.require(VERB_SCOPE, environment)
        told = await read_checked(request, VerbRequest)
        heard = await instances.verb(environment, saga, instance, verb, name=told.step, principal=principal, reason=told.reason)
        return answer(request, _heard(instance, verb, heard))


def _heard(identity: str, verb: str, heard: Heard) -> dict[str, Any]:
    if heard.why == "past_pivot":
        detail = f"Instance {identity!r} is past its pivot: it goes forward. `skip` and `retry` decide about its steps."
        raise Problem(409, "past_pivot", "Past the pivot", detail)
    return {"id": identity, "verb": verb, "changed": heard.changed, "state": heard.state, "paused": heard.paused}


def _not_started(result: InstanceStarted) -> Problem:
    error = result.error or {}
    details = {
        "conflict": "The id is taken by an instance with other input or another version.",
        "killed": "The flag of this saga is killed: nothing was begun.",
    }
    faults = [Fault(**{k: one[k] for k in ("pointer", "detail", "code")}) for one in error.get("errors", [error]) if error]
    code = error.get("code", Code.INVALID) if result.outcome == "invalid" else result.outcome
    status = 404 if code == "unknown_version" else STATUSES[result.outcome]
    detail = details.get(result.outcome) or error.get("detail", "")
    return Problem(status, code, "Not started", detail, faults, next_step=error.get("next_step"))
