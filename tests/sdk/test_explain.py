"""Explanations by both faces of the client: from its own snapshot, without a call and without a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rescind
from rescind.causality import CatchUp
from rescind.evaluation import Decided
from rescind.wire import Revision, Snapshot, SnapshotFlag

FLAG = "checkout.new-flow"
TARGETING = {"if": [{"==": [{"var": "country"}, "DE"]}, "on", "off"]}
DEFINITION = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off", "targeting": TARGETING}
SNAPSHOT = Snapshot(environment="production", revision=Revision(1, 7), flags={FLAG: SnapshotFlag(definition=DEFINITION)})
OPTIONS: dict[str, Any] = {"url": "http://127.0.0.1:1", "token": "t", "environment": "production"}
Face = type[rescind.Client] | type[rescind.AsyncClient]


@pytest.fixture(params=[rescind.Client, rescind.AsyncClient])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> rescind.Client | rescind.AsyncClient:
    """A client that was closed before it did anything: it asks nobody."""
    face: Face = request.param
    made = face(**OPTIONS, state_dir=tmp_path)
    made.core.closed = True
    return made


def test_it_says_why_at_its_revision_and_remembers_nothing(client: rescind.Client | rescind.AsyncClient) -> None:
    client.core.current.take_snapshot(SNAPSHOT)
    told = client.explain(FLAG, {"country": "DE"})
    assert isinstance(told, rescind.Explanation)
    assert (told.decided, told.variant, told.revision, told.environment) == (Decided.RULE, "on", "1.7", "production")
    assert client.explain("gone", {}).decided is Decided.NOT_FOUND
    assert client.core.context.recall(FLAG) is None


def test_without_a_snapshot_it_says_so(client: rescind.Client | rescind.AsyncClient) -> None:  # P6
    told = client.explain(FLAG, {})
    assert (told.decided, told.error_code, told.value) == (Decided.NO_SNAPSHOT, "PROVIDER_NOT_READY", None)


def test_a_request_that_could_not_catch_up_is_told_so(client: rescind.Client | rescind.AsyncClient) -> None:  # P3
    client.core.current.take_snapshot(SNAPSHOT)
    client.core.context.pin.set(client.core.causality.pin(Revision(1, 9), CatchUp.LATE))
    told = client.explain(FLAG, {"country": "DE"})
    assert (told.decided, told.variant, told.reason) == (Decided.STALE, "off", "STALE")
    assert client.explain("gone").decided is Decided.NOT_FOUND
