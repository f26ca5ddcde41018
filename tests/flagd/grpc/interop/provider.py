"""The released Python flagd provider, in a process of its own: asked and heard over JSON lines.

`provider.py rpc|in-process PORT [SELECTOR]`. In: `[key, context]`, a boolean flag, default true. Out: `{"ready": true}`,
`{"changed": [keys]}` for every event, `{"value", "variant", "reason", "error"}` for every question.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import EventDetails, ProviderEvent

DEADLINE_MS = 30_000
RETRY_MS = 1_000
writing = threading.Lock()


def say(line: dict[str, Any]) -> None:
    with writing:
        print(json.dumps(line), flush=True)


def changed(details: EventDetails) -> None:
    say({"changed": details.flags_changed or []})


def main() -> None:
    mode, port, selector = sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None
    provider = FlagdProvider(
        host="127.0.0.1",
        port=port,
        resolver_type=ResolverType(mode),
        selector=selector,
        deadline_ms=DEADLINE_MS,
        retry_backoff_max_ms=RETRY_MS,
    )
    api.set_provider_and_wait(provider)
    client = api.get_client()
    client.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, changed)
    say({"ready": True})
    for line in sys.stdin:
        key, attributes = json.loads(line)
        targeting_key = attributes.pop("targetingKey", None)
        found = client.get_boolean_details(key, True, EvaluationContext(targeting_key, attributes))
        say({"value": found.value, "variant": found.variant, "reason": found.reason, "error": found.error_code})
    api.shutdown()


main()
