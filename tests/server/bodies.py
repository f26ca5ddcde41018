"""A minimal valid body for every way to write: what is sent where, in the order in which the ways are tried."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sagas.breakers import Told
from tests.server.serving import P, Served, definition

E = "/v1/environments/{environment}"
AT = (datetime.now(UTC) + timedelta(days=30)).isoformat()
REASON = {"reason": "because"}
DEFINITION = {"definition": definition(), "off_variant": "off"}
EFFECT = {"key": "k", "kind": "mail", "flag": "g", "variant": "on", "payload": {"to": "ann"}, "subject": "ann", "step": "s"}
SAGA = {"name": "order", "version": "1", "id": "1"}
ID = "0192aaaa-0000-7000-8000-000000000000"
NEW, OLD = f"shop/web@sha256:{'a' * 64}", f"sha256:{'b' * 64}"
STEP: dict[str, Any] = {"name": "s", "kind": "mail", "key": "k:{x}", "class": "irreversible"}

CLAIM: dict[str, Any] = {
    "worker": "w", "saga": "order", "versions": ["1"], "steps": ["s"], "acts": ["s"], "wait_seconds": 0, "limit": 1,
    "lease_seconds": 1,
}  # fmt: skip
INSTANCE: dict[str, Any] = {
    "id": "new", "version": "1", "input": {"x": "y"}, "variant": "on", "revision": "1.1", "subject": "ann",
    "attributes": {"a": "b"}, "run_by": "w", "lease_seconds": 1.0, "traceparent": "t",
}  # fmt: skip
WAITS = [{"name": "paid", "before": "s", "event": True}, {"name": "boss", "before": "s", "approval": True}]

BODIES: dict[tuple[str, str], Any] = {
    ("PUT", E): REASON,
    ("PUT", E + "/bucketing"): {"generation": "v3", "past_gate": False, **REASON},
    ("POST", E + "/changes"): {
        "operations": [
            {"op": "put", "flag": {"key": "c", **DEFINITION}},
            {"op": "kill", "key": "g", "since": AT, "scope": {"country": "DE"}, "incident": "I", "compensate": "hold"},
        ],
        "expected_revision": None,
        "past_gate": False,
        **REASON,
    },
    ("POST", E + "/import"): {"flags": {"i": definition({"==": [{"var": "plan"}, "free"]})}, "metadata": {"team": "a"}},
    ("PUT", E + "/flags/{key}"): {
        "flag": {
            **DEFINITION, "kind": "release", "owner": "me", "services": ["web"], "tier": 1, "description": "d", "tags": ["t"],
            "reversibility": "unknown", "expires_at": AT, "effect_attributes": ["country"], "max_staleness_seconds": 5.0,
            "requires_declaration": False,
        },
        "past_gate": False,
        **REASON,
    },
    ("DELETE", E + "/flags/{key}"): REASON,
    ("POST", E + "/flags/{key}/explain"): {"context": {"targetingKey": "ann", "n": 1}},
    ("POST", E + "/flags/{key}/rollout"): {"variant": "off", "steps": [1, 10.5], "every_seconds": 3600, **REASON},
    ("DELETE", E + "/flags/{key}/rollout"): REASON,
    ("POST", E + "/flags/{key}/kill"): {
        **REASON, "incident": "INC-1", "compensate": "hold", "grace_seconds": 0, "scope": {"country": "DE", "n": 1},
        "since": AT, "fault_at": AT, "detected_at": AT, "decided_at": AT,
    },
    ("PUT", E + "/releases/{name}"): {
        "release": {
            "services": {"web": {"artifact": NEW, "previous": OLD, "commands": {"traffic": "shift"}}},
            "migrations": [{"name": "1.sql", "sql": "SELECT 1"}, {"name": "2.sql", "class": "additive"}],
            "flags": ["g"], "tag": "v1", "deployed_at": AT, "description": "d",
        },
        **REASON,
    },
    ("POST", E + "/releases/{name}/kill"): {
        **REASON, "incident": "INC-1", "compensate": "hold", "grace_seconds": 0, "scope": {"country": "DE", "n": 1},
        "since": AT, "fault_at": AT, "detected_at": AT, "decided_at": AT,
    },
    ("POST", E + "/flags/{key}/lift"): {**REASON, "kill_count": 1, "force": True, "past_gate": False},
    ("POST", E + "/restored"): REASON,
    ("POST", E + "/heartbeats"): {
        "instance": "i", "service": "web", "revision": [1, 1], "how": "push", "begun": ["a"], "sdk_version": "1",
        "service_version": "1", "applied_ago_ms": 5.0, "declared": ["g"], "proven": [1, 1], "proof": "p",
    },
    ("PUT", E + "/segments/{name}"): {
        "segment": {"rule": {"in": [{"var": "country"}, ["DE"]]}}, "past_gate": False, **REASON,
    },
    ("POST", E + "/counts"): {
        "run": "r", "service": "web", "instance": "i",
        "windows": [
            {
                "sequence": 1, "ended_ms_ago": 5,
                "evaluations": [{"flag": "g", "variant": "on", "reason": "STATIC", "count": 1}],
                "outcomes": [{"flag": "g", "variant": "on", "ok": 1, "failed": 1, "durations": [[8, 2]]}],
            }
        ],
    },
    ("DELETE", E + "/segments/{name}"): REASON,
    ("POST", E + "/schedules"): {"at": AT, "operations": [{"op": "put", "flag": {"key": "s", **DEFINITION}}], **REASON},
    ("DELETE", E + "/schedules/{identity}"): REASON,
    ("POST", E + "/effects:admit"): {
        "effects": [{**EFFECT, "saga": SAGA, "revision": [1, 1], "attributes": {"a": "b"}, "lease_seconds": 30.0, "token": ID}],
        "instance": "i",
    },
    ("POST", E + "/effects:report"): {
        "reports": [
            {"effect_id": ID, "token": ID, "outcome": "succeeded", "result": {"a": 1}, "error": {"a": 1}, "lease_seconds": 1.0}
        ],
        "instance": "i",
    },
    ("POST", E + "/effects:proceeded"): {
        "effects": [{
            "effect_id": ID, "request": {**EFFECT, "saga": SAGA, "attributes": {"a": "b"}, "token": ID}, "epoch": 1, "at": 1.0,
            "instance": "i", "outcome": "succeeded", "result": {"a": 1}, "error": {"a": 1},
        }],
        "instance": "i",
        "now": 2.0,
    },
    ("PUT", E + "/sagas/{name}/versions/{version}"): {"document": {"steps": [STEP], "description": "d", "flag": "g"}, **REASON},
    ("PUT", E + "/kinds/{name}/versions/{version}"): {
        "document": {"class": "irreversible", "retry": {"attempts_max": 3}, "timeout_seconds": 3}, **REASON,
    },
    ("PUT", E + "/connections/{name}"): {
        "connection": {"type": "smtp", "host": "127.0.0.1", "port": 25, "sender": "a@b", "username": "u", "description": "d"},
        **REASON,
    },
    ("DELETE", E + "/connections/{name}"): None,
    ("POST", E + "/breakers/{kind}/reset"): {**REASON, "side": "act"},
    ("POST", E + "/tasks:claim"): {**CLAIM, "instance": "i"},
    ("POST", E + "/tasks:report"): {
        "worker": "w", "reports": [{"id": ID, "token": ID, "outcome": "succeeded", "proof": "p", "error": {"a": "b"}}],
    },
    ("POST", E + "/sagas/{saga}/instances"): INSTANCE,
    ("POST", E + "/sagas/{saga}/instances:start"): {"instances": [INSTANCE], "claim": CLAIM},
    ("POST", E + "/sagas/{saga}/instances:await"): {"ids": ["i"], "wait_seconds": 0},
    ("POST", E + "/sagas/{saga}/instances/{instance}/events/{event}"): {"payload": {"a": "b", "n": 1}, "event_id": "e"},
    ("POST", E + "/sagas/{saga}/instances/{instance}/approvals/{approval}"): {"approve": True, **REASON},
    ("POST", E + "/sagas/{saga}/instances/{instance}/{verb}"): {"step": "s", **REASON},
    ("POST", E + "/operations"): {
        "verb": "retry", "saga": "order", "step": "s", "per_second": 5.0, "dry_run": False, **REASON,
        "filter": {
            "version": "1", "status": "waiting", "paused": False, "flag": "g", "subject": "ann",
            "attributes": {"a": "b", "n": 1}, "cause": "failed", "error": "E", "started_after": AT, "started_before": AT,
        },
    },
    ("POST", E + "/operations/{operation}/cancel"): REASON,
    ("POST", E + "/tasks:heartbeat"): {"worker": "w", "tasks": [f"{ID}:{ID}"], "lease_seconds": 1.0},
    ("POST", "/v1/rollbacks/{rollback}/{verb}"): {**REASON, "effects": [ID]},
    ("POST", "/v1/tokens"): {"name": "n", "scopes": ["read"], "environment": "production", "expires_at": AT, **REASON},
    ("POST", "/v1/tokens/{token_id}/revoke"): REASON,
}  # fmt: skip

TOLERANT = {
    E + way
    for way in (
        "/effects:admit",
        "/effects:report",
        "/effects:proceeded",
        "/tasks:report",
        "/tasks:heartbeat",
        "/heartbeats",
        "/counts",
        "/sagas/{saga}/instances:start",
        "/sagas/{saga}/instances:await",
    )
}
"""Between SDK and server: what cannot be kept fails alone, or is left out, and never its neighbours."""
UNKEPT = {E + "/flags/{key}/explain"}
WITHOUT_PLACE = {E + "/tasks:claim"}


async def names(served: Served, number: int = 0) -> dict[str, str]:
    """What the placeholders of paths stand for: things that exist, others for each number."""
    flag, lifted, name = f"f{number}", f"l{number}", f"n{number}"
    for key in ("g", "h", flag, lifted):
        await served.put_flag(key)
    held = (await served.kill(lifted, compensate="hold"))["rollback_id"]
    rule = {"segment": {"rule": {"==": [{"var": "country"}, "DE"]}}, **REASON}
    await served.ok("PUT", f"{P}/segments/{name}", rule)
    await served.ok("PUT", f"{P}/releases/{name}", {"release": {"flags": [flag], "services": {"web": {}}}, **REASON})
    later = {"at": AT, "operations": [{"op": "put", "flag": {"key": "s", **DEFINITION}}], **REASON}
    schedule = (await served.ok("POST", f"{P}/schedules", later))["id"]
    await served.ok(
        "PUT", f"{P}/connections/{name}", {"connection": {"type": "webhook", "url": "https://example.com"}, **REASON}
    )
    await served.ok("PUT", f"{P}/sagas/order/versions/1", {"document": {"steps": [STEP], "flag": "g"}, **REASON})
    saga, instance = f"s{number}", f"i{number}"
    document = {"steps": [STEP], "flag": "h", "waits": WAITS}
    await served.ok("PUT", f"{P}/sagas/{saga}/versions/1", {"document": document, **REASON})
    await served.ok("POST", f"{P}/sagas/{saga}/instances", {**INSTANCE, "id": instance})
    failed = Told(place=("production", "mail"), is_good=False, error="boom")
    await served.parts.engine.breakers.tell(served.parts.pg.connection, [failed])
    asked = {"verb": "retry", "saga": saga, "filter": {"subject": "nobody"}, **REASON}
    operation = (await served.ok("POST", f"{P}/operations", asked))["id"]
    token = (await served.token("read")).split("_")[1]
    return {
        "environment": "production", "key": flag, "lifted": lifted, "name": name, "version": "1", "identity": schedule,
        "rollback": held, "verb": "retry", "token_id": token, "saga": saga,
        "instance": instance, "event": "paid", "approval": "boss", "kind": "mail", "operation": operation,
        "service": "web",
    }  # fmt: skip


def filled(path: str, named: dict[str, str]) -> str:
    """The path with what its placeholders stand for; a lift is tried on a flag that is killed."""
    killed = {"key": named["lifted"]} if path.endswith("/lift") and named["key"].startswith("f") else {}
    return path.format(**{**named, **killed})
