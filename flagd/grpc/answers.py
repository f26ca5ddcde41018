"""Evaluations as `flagd.evaluation` answers them: by our own evaluator, in flagd's words (P4, P7).

Without a value (DISABLED, or DEFAULT without a default variant) the client uses its own default: v1 then has an empty
variant and a zero, v2 has neither field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from grpc import StatusCode
from msgspec import UNSET
from rescind import wire
from rescind.evaluation import KILLED, ErrorCode, Reason, Resolution

from flagd.grpc.gate import Refusal
from flagd.grpc.messages import Package
from flagd.grpc.values import struct
from flagd.replica import Replica

KINDS: Final = {"Boolean": "boolean", "String": "string", "Float": "float", "Int": "integer", "Object": "object"}
STATUSES: Final = {
    ErrorCode.FLAG_NOT_FOUND: StatusCode.NOT_FOUND,
    ErrorCode.TYPE_MISMATCH: StatusCode.INVALID_ARGUMENT,
    ErrorCode.PARSE_ERROR: StatusCode.DATA_LOSS,
    ErrorCode.GENERAL: StatusCode.UNKNOWN,
}


def resolve(package: Package, name: str, replica: Replica, key: str, context: Mapping[str, Any]) -> Any:
    """The `Resolve<name>Response`. Raises `Refusal` where there is no such flag, it is of another type, or its rule fails."""
    resolution = replica.evaluator.evaluate(key, context, UNSET, KINDS[name])
    if resolution.error_code is not None and resolution.variant is None:
        status = STATUSES.get(ErrorCode(resolution.error_code), StatusCode.UNKNOWN)
        raise Refusal(status, f"{resolution.error_code}: flag {key!r:.280}: {resolution.error_details}")
    return package[f"Resolve{name}Response"](
        value=_value(resolution),
        reason=_reason(resolution, replica.snapshot.flags.get(key)),
        variant=resolution.variant,
        metadata=struct({**_told(replica), **resolution.metadata}),
    )


def resolve_all(package: Package, replica: Replica, context: Mapping[str, Any]) -> Any:
    """The `ResolveAllResponse`. Flags that fail are left out: the caller has its default."""
    response = package["ResolveAllResponse"](metadata=struct({**replica.snapshot.metadata, **_told(replica)}))
    for key, flag in replica.snapshot.flags.items():
        resolution = replica.evaluator.outcome(key, context)
        if resolution.error_code is not None and resolution.variant is None:
            continue
        response.flags[key].CopyFrom(
            package["AnyFlag"](
                reason=_reason(resolution, flag),
                variant=resolution.variant,
                metadata=struct({**_told(replica), **resolution.metadata}),
                **_any(_value(resolution)),
            )
        )
    return response


def _value(resolution: Resolution) -> Any:
    value = None if resolution.variant is None or resolution.value is UNSET else resolution.value
    return struct(value) if isinstance(value, dict) else value


def _any(value: Any) -> dict[str, Any]:
    match value:
        case None:
            return {}
        case bool():
            return {"bool_value": value}
        case str():
            return {"string_value": value}
        case int() | float():
            return {"double_value": value}
        case _:
            return {"object_value": value}


def _reason(resolution: Resolution, flag: wire.SnapshotFlag | None) -> str:
    """STATIC only where the answer is everyone's, for clients keep it by the flag's key alone.

    Under narrowed kills it depends on the context, as by targeting: a match in their scope, the default outside.
    """
    if resolution.reason != Reason.STATIC or flag is None or not flag.kills or not all(kill.scope for kill in flag.kills):
        return str(resolution.reason)
    return str(Reason.TARGETING_MATCH if resolution.metadata.get(KILLED) is True else Reason.DEFAULT)


def _told(replica: Replica) -> dict[str, Any]:
    """What the metadata of every answer says: the flag set that a selector names, and its revision."""
    return {"flagSetId": replica.environment, "version": str(replica.revision)}
