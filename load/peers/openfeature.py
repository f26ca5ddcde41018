"""What is asked through OpenFeature's own client: its no-op provider, flagd's in-process provider, and ours."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import rescind
from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.evaluation_context import EvaluationContext
from openfeature.provider import AbstractProvider
from openfeature.provider.no_op_provider import NoOpProvider
from rescind.openfeature import RescindProvider

from load.peers.ours import definitions

logging.getLogger("openfeature.contrib").setLevel(logging.CRITICAL)  # flagd's watcher looks once more for its file at the end


class ThroughOpenFeature:
    """A provider behind a client on a domain of its own."""

    name = "OpenFeature"
    statement = "client.get_boolean_value(key, False, context)"

    def __init__(self, provider: AbstractProvider) -> None:
        api.set_provider_and_wait(provider, self.name)
        self.client = api.get_client(self.name)

    def context(self, user: dict[str, Any]) -> Any:
        """OpenFeature's context object."""
        attributes = {name: user[name] for name in ("country", "plan", "email")}
        return EvaluationContext(user["key"], attributes)

    def close(self) -> None:
        """Nothing of its own to stop: `shutdown` stops all of them."""


class NoOp(ThroughOpenFeature):
    """What OpenFeature costs by itself."""

    name = "OpenFeature, no-op provider"

    def __init__(self, folder: Path) -> None:
        del folder
        super().__init__(NoOpProvider())


class Flagd(ThroughOpenFeature):
    """openfeature-provider-flagd with flags from a file, evaluated in the process."""

    name = "flagd provider, in process"

    def __init__(self, folder: Path) -> None:
        path = folder / "flagd.json"
        path.write_text(json.dumps({"flags": definitions()}))
        super().__init__(FlagdProvider(resolver_type=ResolverType.FILE, offline_flag_source_path=str(path), deadline_ms=5_000))


class Ours(ThroughOpenFeature):
    """Rescind's provider over a client that follows a server."""

    name = "Rescind, through OpenFeature"

    def __init__(self, client: rescind.Client) -> None:
        super().__init__(RescindProvider(client))


def shutdown() -> None:
    """Stop every provider."""
    api.shutdown()
