"""A team's service, written for the SDK of any release since 0.1.0: it does what its standard input says, a line at a time.

Run by the interpreter of the release under test, so it imports `rescind` and the standard library alone.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import rescind

FLAG = "checkout.new-flow"


def capture(order_id: str, amount_cents: int) -> None:
    """What the step is given stands in its definition since 0.2; to a server of 0.1.0 it is not told."""


class Service:
    """What the lines of standard input name; every method's answer is JSON."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.changes: list[str] = []
        self.undone: list[str] = []
        self.saga = rescind.Saga("order", version="1", flag=FLAG)
        step = self.saga.step(name="capture", kind="payment.capture", key="capture:{order_id}", settle_seconds=0)(capture)
        step.compensation(self.undo)
        self.client = rescind.Client(**options, sagas=[self.saga])
        self.client.on_change(FLAG, lambda change: self.changes.append(str(change.revision)))

    def undo(self, effect: rescind.Effect) -> dict[str, str]:
        self.undone.append(effect.key)
        return {"refund": effect.id}

    def ready(self) -> dict[str, Any]:
        return {"ready": self.client.wait_ready(60), "file": rescind.__file__}

    def evaluate(self, context: dict[str, Any]) -> dict[str, Any]:
        found = self.client.boolean_details(FLAG, False, context)
        return {"value": found.value, "variant": found.variant, "reason": str(found.reason), "error": found.error_code}

    def effect(self, key: str, variant: str | None = None, amount: int = 1, fate: str = "done") -> dict[str, Any]:
        saga = self.saga.instance(key)
        payload = {"amount_cents": amount}
        options: dict[str, Any] = {"variant": variant, "saga": saga, "step": "capture"}
        try:
            with self.client.effect("payment.capture", flag=FLAG, key=key, payload=payload, **options) as effect:
                if effect.replayed:
                    return {"outcome": "replayed", "id": effect.id, "result": effect.result}
                if fate == "not done":
                    raise rescind.NotDone("the provider is away")
                if fate == "unknown":
                    raise ConnectionError("the answer was lost")
                effect.result = {"charge": f"ch_{key}"}
            return {"outcome": "done", "id": effect.id}
        except (rescind.RescindError, rescind.NotDone, ConnectionError) as error:
            return {"outcome": type(error).__name__}

    def status(self) -> dict[str, Any]:
        status = self.client.status()
        return {
            "instance": status.instance,
            "connected": status.connected,
            "faults": status.fault_count,
            "revision": status.revision,
            "changes": self.changes,
            "undone": self.undone,
        }

    def work(self) -> dict[str, Any]:
        threading.Thread(target=self.client.work, args=(self.saga,), daemon=True).start()
        return {}


def main() -> None:
    service = Service(json.loads(sys.argv[1]))
    for line in sys.stdin:
        asked = json.loads(line)
        answer = getattr(service, asked.pop("do"))(**asked)
        print(json.dumps(answer), flush=True)
    service.client.close()


if __name__ == "__main__":
    main()
