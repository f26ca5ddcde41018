"""What clients, effects and saga instances may be given by name, and how long clients take to begin and to end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from rescind.effects import Saga as SagaArgument

READY_SECONDS = 5.0
CLOSE_SECONDS = 2.0


class Options(TypedDict, total=False):
    """How a client is set up; each falls back to its `RESCIND_*` variable."""

    url: str | None
    token: str | None
    environment: str | None
    """only with a token that is good for all environments"""
    service: str | None
    service_version: str | None
    instance: str | None
    state_dir: str | Path | None
    bootstrap: str | Path | Mapping[str, Any] | None
    """Flags for a first start without the server: a flagd document or a snapshot, or the path of one."""


class EffectOptions(TypedDict, total=False):
    """What an effect may say beside its kind, flag, key and payload."""

    saga: SagaArgument | None
    """(name, version, id), or `saga.instance(id)`"""
    step: str | None
    kind_version: str | None
    subject: str | None
    attributes: Mapping[str, Any] | None
    variant: str | None
    """left out: what this task's or request's own evaluation of the flag gave"""
    lease_seconds: float | None
    """left out: what the step's definition says, where its saga is registered with this client, else 30"""


class InstanceOptions(TypedDict, total=False):
    """What an instance may say beside its saga, id and input."""

    subject: str | None
    attributes: Mapping[str, Any] | None
    variant: str | None
    """left out: what this task's or request's own evaluation of the saga's flag gave"""
