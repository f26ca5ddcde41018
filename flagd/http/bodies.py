"""Bodies in and out: JSON, or MessagePack for whoever asks."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response
from msgspec import Struct
from rescind import wire

from flagd.core import documents
from flagd.core.documents import REASON_LENGTH_MAX
from flagd.core.ruleform import rules_of
from flagd.errors import refused
from flagd.service import FlagView
from flagd.store_schedules import Rollout, Schedule
from runtime.bodies import body_of
from runtime.errors import Code
from runtime.problem import Problem
from runtime.storable import nul_faults

MESSAGEPACK = "application/msgpack"
AnyRequest = Request[Any, Any, Any]


async def read(request: AnyRequest) -> Any:
    """The body as plain values. Raises `Problem` 400 for what is no JSON (or MessagePack), or nested too deeply."""
    body = await body_of(request)
    decode = msgspec.msgpack.decode if _kind(request.headers.get("content-type")) == MESSAGEPACK else msgspec.json.decode
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Problem(400, Code.INVALID, "Malformed", f"The body cannot be read: {detail}.") from None


async def read_object(request: AnyRequest, *, is_kept: bool = True) -> dict[str, Any]:
    """The body, which is an object; an empty body is an empty one. Raises `Problem` 400 or 422.

    `is_kept`: something of it will be stored, so that no text in it may hold a NUL.
    """
    body = await body_of(request)
    if not body:
        return {}
    document = await read(request)
    if not isinstance(document, dict):
        raise refused([wire.Fault(pointer="", code="wrong_type", detail="the body is an object")])
    if is_kept and (faults := nul_faults(document, body)):
        raise refused([wire.Fault(pointer=one.pointer, code=one.code, detail=one.detail) for one in faults])
    return document


def answer(request: AnyRequest, value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    """The value, in the form that was asked for."""
    if MESSAGEPACK in request.headers.get("accept", ""):
        return Response(msgspec.msgpack.encode(value), status_code=status, media_type=MESSAGEPACK, headers=headers)
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json", headers=headers)


def reason_of(text: str | None) -> str | None:
    """A reason from the query. Raises `Problem` 422."""
    if text is not None and (len(text) > REASON_LENGTH_MAX or "\0" in text):
        detail = f"a reason is a text of at most {REASON_LENGTH_MAX} characters"
        raise refused([wire.Fault(pointer="/reason", code="wrong_type", detail=detail)])
    return text


class Ending(Struct, frozen=True, kw_only=True):
    """What a request to delete or stop something says."""

    reason: str | None
    expected_revision: wire.Revision | None = None


async def read_ending(request: AnyRequest, reason: str | None, *, revised: bool = False) -> Ending:
    """The body `{"reason": "..."}`, or the query's `reason` where it has none; with `expected_revision` for what is `revised`.

    Raises `Problem` 400 or 422 with every fault.
    """
    body = await read_object(request)
    known = ("reason", "expected_revision") if revised else ("reason",)
    told, faults = documents.read_reason(body)
    expected, unread = documents.read_revision(body) if revised else (None, [])
    if faults := [*faults, *unread, *documents.unknown_fields(body, dict.fromkeys(known), "")]:
        raise refused(faults)
    return Ending(reason=told or reason_of(reason), expected_revision=expected)


def flag_body(view: FlagView) -> dict[str, Any]:
    """A flag as it is answered: what was written, as rules too (null where they cannot say it), and what has become of it."""
    stored = view.stored
    return {
        **msgspec.structs.asdict(stored.flag),
        "rules": rules_of(stored.flag.definition.get("targeting")),
        "revision": str(stored.changed),
        "epoch": stored.epoch,
        "killed": bool(view.kills),
        "kills": [
            {
                "rollback_id": kill.rollback_id,
                "scope": kill.scope,
                "off_variant": kill.off_variant,
                "closes_epoch": kill.closes_epoch,
                "revision": str(kill.revision),
                "reason": kill.reason,
                "actor": kill.actor,
                "killed_at": kill.killed_at,
            }
            for kill in view.kills
        ],
        "schedules": [{"id": str(one.id), "at": one.at, "actor": one.actor, "reason": one.reason} for one in view.schedules],
        "rollout": None if view.rollout is None or view.rollout.state != "running" else rollout_body(view.rollout),
        "created_at": stored.created_at,
    }


def schedule_body(schedule: Schedule) -> dict[str, Any]:
    """A scheduled change as it is answered."""
    return {
        "id": str(schedule.id),
        "at": schedule.at,
        "state": schedule.state,
        "flags": schedule.keys,
        "operations": schedule.operations,
        "reason": schedule.reason,
        "actor": schedule.actor,
        "created_at": schedule.created_at,
        "revision": None if schedule.revision is None else str(schedule.revision),
        "faults": schedule.faults,
        "ended_at": schedule.ended_at,
        "ended_by": schedule.ended_by,
        "ended_reason": schedule.ended_reason,
    }


def rollout_body(rollout: Rollout) -> dict[str, Any]:
    """A rollout as it is answered: `done` are the steps that were taken, `stopped` is why it went no further."""
    return {
        "id": str(rollout.id),
        "flag": rollout.flag,
        "variant": rollout.variant,
        "rest": rollout.rest,
        "steps": rollout.steps,
        "every_seconds": rollout.every_seconds,
        "done": rollout.done,
        "percent": rollout.done[-1]["percent"],
        "state": rollout.state,
        "stopped": rollout.stopped,
        "faults": rollout.faults,
        "next_at": rollout.next_at,
        "reason": rollout.reason,
        "actor": rollout.actor,
        "created_at": rollout.created_at,
        "ended_at": rollout.ended_at,
        "ended_by": rollout.ended_by,
        "ended_reason": rollout.ended_reason,
    }


def _kind(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()
