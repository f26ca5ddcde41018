"""The short way in for heartbeats: after a kill a whole fleet sends them at once. In full they stand in `flagd.http.routes`."""

from __future__ import annotations

import msgspec
from rescind import wire

from flagd.http.routes import OnAcknowledged
from flagd.instances import BEAT, Instances, faults_of, heard
from flagd.replica import Replicas
from flagd.snapshots import HEARTBEAT_SECONDS
from runtime.lane import Route, read
from runtime.tokens import Principal

_beats = msgspec.json.Decoder(wire.InstanceBeat)


def routes(replicas: Replicas, instances: Instances, on_acknowledged: OnAcknowledged | None) -> dict[str, Route]:
    """`heartbeats`."""

    async def beat(environment: str, principal: Principal, body: bytes) -> wire.InstanceBeatAnswer | None:
        replica, one = replicas.held(environment), read(_beats, body)
        if replica is None or one is None or faults_of(one):
            return None
        await instances.beat(environment, heard(one, principal, environment))
        if one.begun is not None and on_acknowledged is not None:
            await on_acknowledged(environment, heard(one, principal, environment))
        return wire.InstanceBeatAnswer(revision=replica.revision, interval_seconds=HEARTBEAT_SECONDS)

    return {"heartbeats": Route((BEAT,), beat)}
