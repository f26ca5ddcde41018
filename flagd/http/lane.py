"""The short way in for heartbeats and counts: a whole fleet sends them at once, after a kill, after a window.

In full they stand in `flagd.http.routes` and `flagd.http.counts`.
"""

from __future__ import annotations

from typing import Any

import msgspec
from rescind import wire

from flagd.core import counting
from flagd.counts import COUNT, Counts
from flagd.http.routes import OnAcknowledged
from flagd.instances import BEAT, Instances, faults_of, heard
from flagd.replica import Replicas
from runtime.lane import Route, read
from runtime.tokens import Principal

_beats = msgspec.json.Decoder(wire.InstanceBeat)
_documents = msgspec.json.Decoder(dict[str, Any])


def routes(
    replicas: Replicas, instances: Instances, counts: Counts, on_acknowledged: OnAcknowledged | None
) -> dict[str, Route]:
    """`heartbeats` and `counts`."""

    async def beat(environment: str, principal: Principal, body: bytes) -> wire.InstanceBeatAnswer | None:
        replica, one = replicas.held(environment), read(_beats, body)
        if replica is None or one is None or faults_of(one):
            return None
        answer = await instances.beat(environment, heard(one, principal, environment), replica.revision)
        if one.begun is not None and on_acknowledged is not None:
            await on_acknowledged(environment, heard(one, principal, environment))
        return answer

    async def count(environment: str, principal: Principal, body: bytes) -> wire.CountsAnswer | None:
        document = read(_documents, body)
        summary = None if document is None else counting.read(document)[0]
        return None if summary is None or replicas.held(environment) is None else await counts.take(environment, summary)

    return {"counts": Route((COUNT,), count), "heartbeats": Route((BEAT,), beat)}
