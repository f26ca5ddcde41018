"""Records the wire of this version on a real server: what an SDK sends and what it gets, byte for byte, as golden fixtures.

    ./run python tools/golden.py tests/compatibility/golden/VERSION

Run once per release; what it wrote is never edited afterwards (P21). Values that differ from run to run stay as they came.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import httpx

ENVIRONMENT = "/v1/environments/production"
FLAG = {
    "key": "checkout.new-flow",
    "definition": {
        "state": "ENABLED",
        "variants": {"on": True, "off": False},
        "defaultVariant": "on",
        "targeting": {"if": [{"in": [{"var": "country"}, ["NO", "SE"]]}, "on", {"fractional": [["on", 25], ["off", 75]]}]},
    },
    "services": ["checkout"],
    "effect_attributes": ["tenant"],
}
KIND = {"kind": "payment.capture", "version": "1", "class": "compensatable", "compensation": {"executor": "worker"}}
SAGA = {
    "saga": "order",
    "version": "1",
    "flag": "checkout.new-flow",
    "steps": [
        {
            "name": "capture",
            "kind": "payment.capture",
            "key": "capture:{order_id}",
            "class": "compensatable",
            "compensation": {"executor": "worker"},
        }
    ],
}


class Recorder:
    """Calls, and keeps each exchange as `NN-name.json`."""

    def __init__(self, http: httpx.AsyncClient, folder: Path) -> None:
        self._http = http
        self._folder = folder
        self._count = 0

    async def call(self, name: str, method: str, path: str, body: object = None) -> Any:
        response = await self._http.request(method, path, json=body)
        answer = response.json() if response.content else None
        self.keep(name, {"method": method, "path": path, "request": body, "status": response.status_code, "answer": answer})
        return answer

    def keep(self, name: str, exchange: dict[str, Any]) -> None:
        self._count += 1
        path = self._folder / f"{self._count:02}-{name}.json"
        path.write_text(json.dumps(exchange, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


async def events(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    """The stream's events until one of each kind was seen."""
    seen: list[dict[str, Any]] = []
    fields: dict[str, str] = {}
    async with http.stream("GET", f"{ENVIRONMENT}/stream", params={"instance": "golden-1", "service": "checkout"}) as response:
        async for line in response.aiter_lines():
            if line:
                field, _, value = line.partition(":")
                fields[field] = value.strip()
            elif "event" in fields:
                seen.append({"event": fields["event"], "id": fields.get("id"), "data": json.loads(fields["data"])})
                fields = {}
            if {"snapshot", "change", "heartbeat"} <= {event["event"] for event in seen}:
                return seen
    return seen


async def record(http: httpx.AsyncClient, folder: Path) -> None:
    recorder = Recorder(http, folder)
    await recorder.call("flag-put", "PUT", f"{ENVIRONMENT}/flags/{FLAG['key']}", {"flag": FLAG, "reason": "golden"})
    await recorder.call("saga-put", "PUT", f"{ENVIRONMENT}/sagas/order/versions/1?reason=golden", SAGA)
    await recorder.call("self", "GET", "/v1/self")
    await recorder.call("snapshot", "GET", f"{ENVIRONMENT}/snapshot")
    following = asyncio.create_task(events(http))
    beat = {"instance": "golden-1", "service": "checkout", "revision": [1, 1], "how": "start", "sdk_version": "0.1.0"}
    await recorder.call("heartbeat", "POST", f"{ENVIRONMENT}/heartbeats", beat)
    effect = {
        "key": "capture:4711", "kind": "payment.capture", "flag": FLAG["key"], "variant": "on", "revision": [1, 1],
        "attributes": {"tenant": "acme"}, "saga": {"name": "order", "version": "1", "id": "4711"}, "step": "capture",
        "subject": "customer-1", "payload": {"amount_cents": 1299, "currency": "usd"}, "lease_seconds": 30.0,
        "token": str(uuid.UUID(int=1)),
    }  # fmt: skip
    batch = {"effects": [effect, {**effect, "key": "capture:4712", "flag": "unknown"}, {"key": ""}], "instance": "golden-1"}
    admitted = await recorder.call("admit", "POST", f"{ENVIRONMENT}/effects:admit", batch)
    first = admitted["results"][0]
    report = {"effect_id": first["effect_id"], "token": first["token"], "outcome": "succeeded", "result": {"id": "pi_1"}}
    await recorder.call("report", "POST", f"{ENVIRONMENT}/effects:report", {"reports": [report], "instance": "golden-1"})
    await recorder.call("replay", "POST", f"{ENVIRONMENT}/effects:admit", {"effects": [{**effect, "token": None}]})
    kill = {"reason": "golden", "incident": "INC-1"}
    killed = await recorder.call("kill", "POST", f"{ENVIRONMENT}/flags/{FLAG['key']}/kill", kill)
    acknowledged = {**beat, "revision": [1, 2], "how": "push", "begun": []}
    await recorder.call("acknowledge", "POST", f"{ENVIRONMENT}/heartbeats", acknowledged)
    await recorder.call("admit-killed", "POST", f"{ENVIRONMENT}/effects:admit", {"effects": [{**effect, "key": "capture:9"}]})
    await recorder.call("snapshot-killed", "GET", f"{ENVIRONMENT}/snapshot")
    claim = {"worker": "golden", "saga": "order", "versions": ["1"], "steps": ["capture"], "limit": 1, "wait_seconds": 10.0}
    tasks = await recorder.call("tasks-claim", "POST", f"{ENVIRONMENT}/tasks:claim", claim)
    task = tasks["tasks"][0]
    held = {"worker": "golden", "tasks": [f"{task['id']}:{task['token']}"], "lease_seconds": 30.0}
    await recorder.call("tasks-heartbeat", "POST", f"{ENVIRONMENT}/tasks:heartbeat", held)
    done = {"id": task["id"], "token": task["token"], "outcome": "succeeded", "proof": {"refund": "re_1"}}
    await recorder.call("tasks-report", "POST", f"{ENVIRONMENT}/tasks:report", {"worker": "golden", "reports": [done]})
    await recorder.call("rollback", "GET", f"/v1/rollbacks/{killed['rollback_id']}?wait=settled&timeout_seconds=20")
    evaluate = f"/ofrep/v1/evaluate/flags/{FLAG['key']}"
    await recorder.call("ofrep", "POST", evaluate, {"context": {"targetingKey": "customer-1"}})
    await recorder.call("unknown-flag", "GET", f"{ENVIRONMENT}/flags/checkout.new-flo")
    recorder.keep("stream", {"method": "GET", "path": f"{ENVIRONMENT}/stream", "events": await following})


async def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        dev = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("rescind")), "dev", "--data", place),
            *("--http-port", "0", "--sync-port", "0", "--evaluation-port", "0"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert dev.stdout is not None
        try:
            async for line in dev.stdout:
                if b"is ready" in line:
                    break
            lines = (Path(place) / "rescind.env").read_text().splitlines()
            settings = dict(line.removeprefix("export ").split("=", 1) for line in lines if "=" in line)
            token, url = (settings[name].strip("'\"") for name in ("RESCIND_TOKEN", "RESCIND_URL"))
            headers = {"authorization": f"Bearer {token}", "x-rescind-environment": "production"}
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as http:
                await record(http, folder)
        finally:
            os.kill(dev.pid, signal.SIGTERM)
            await dev.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
