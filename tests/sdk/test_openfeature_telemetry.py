"""What OpenFeature's evaluations and trackings become in OpenTelemetry, and what becomes of an evaluation context."""

from __future__ import annotations

import enum
import json
import math
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
import rescind
from hypothesis import given
from hypothesis import strategies as st
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.track import TrackingEventDetails
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from rescind.openfeature import RescindProvider, TelemetryHook
from rescind.openfeature.context import DEPTH_MAX, context_of

from tests.sdk.conftest import FLAG, Site
from tests.waiting import until_sync


class Colour(enum.Enum):
    RED = "red"


class Hostile:
    """An attribute whose own code fails."""

    def __str__(self) -> str:
        raise RuntimeError("hostile")


class Records:
    """A real logger provider, and what it was given."""

    def __init__(self) -> None:
        self._exporter = InMemoryLogRecordExporter()
        self.provider = LoggerProvider()
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(self._exporter))

    def events(self) -> list[tuple[str | None, dict[str, Any]]]:
        """Name and attributes of each."""
        records = [data.log_record for data in self._exporter.get_finished_logs()]
        return [(record.event_name, dict(record.attributes or {})) for record in records]


@pytest.fixture
def records() -> Iterator[Records]:
    records = Records()
    yield records
    records.provider.shutdown()


@pytest.fixture
def flags(site: Site, records: Records) -> Iterator[OpenFeatureClient]:
    """An OpenFeature client whose provider and hook speak to `records`."""
    with rescind.Client(**site.options) as client:
        domain = uuid.uuid4().hex
        api.set_provider_and_wait(RescindProvider(client, logger_provider=records.provider), domain)
        flags = api.get_client(domain)
        flags.add_hooks([TelemetryHook(logger_provider=records.provider)])
        yield flags
        api.shutdown()


def test_an_evaluation_is_an_event_by_the_semantic_conventions(site: Site, flags: OpenFeatureClient, records: Records) -> None:
    flags.get_boolean_value(FLAG, False, EvaluationContext("user-1"))
    flags.get_boolean_value("missing", True)
    evaluated, missing = records.events()
    assert evaluated == (
        "feature_flag.evaluation",
        {
            "feature_flag.key": FLAG,
            "feature_flag.provider.name": "rescind",
            "feature_flag.result.variant": "on",
            "feature_flag.result.reason": "static",
            "feature_flag.set.id": site.environment,
            "feature_flag.version": "1.1",
            "feature_flag.context.id": "user-1",
        },
    )
    assert missing[1]["feature_flag.result.value"] is True
    assert (missing[1]["feature_flag.result.reason"], missing[1]["error.type"]) == ("error", "flag_not_found")
    assert missing[1]["feature_flag.error.message"]
    assert "feature_flag.result.variant" not in missing[1]
    assert "feature_flag.context.id" not in missing[1]


def test_a_kill_is_seen_in_the_events_with_its_revision(site: Site, flags: OpenFeatureClient, records: Records) -> None:
    # P7
    site.kill()
    until_sync(lambda: flags.get_boolean_value(FLAG, True) is False)
    _, last = records.events()[-1]
    assert (last["feature_flag.result.variant"], last["feature_flag.result.reason"]) == ("off", "static")
    assert last["feature_flag.version"] == "1.2"


def test_the_hook_tells_values_only_when_asked_and_keys_unless_told_not_to(
    site: Site, flags: OpenFeatureClient, records: Records
) -> None:
    flags.hooks = [TelemetryHook(value=True, context_id=False, logger_provider=records.provider)]
    flags.get_boolean_value(FLAG, False, EvaluationContext("user-1"))
    flags.get_object_value("missing", {"a": 1}, EvaluationContext("user-1"))
    flags.get_string_value("missing", "x" * 1000, EvaluationContext("user-1"))
    evaluated, an_object, a_text = (attributes for _, attributes in records.events())
    assert evaluated["feature_flag.result.value"] is True
    assert "feature_flag.context.id" not in evaluated
    assert "feature_flag.result.value" not in an_object
    assert len(a_text["feature_flag.result.value"]) == 256


def test_tracking_is_an_event_in_this_process_and_bounded(flags: OpenFeatureClient, records: Records) -> None:
    attributes: dict[str, Any] = {"plan": "pro", "tags": ["a"], **{f"n{number}": number for number in range(100)}}
    flags.track("bought", EvaluationContext("user-1"), TrackingEventDetails(12.5, attributes))
    flags.track("left")
    (name, bought), (_, left) = records.events()
    assert name == "rescind.tracking"
    assert bought["rescind.tracking.name"] == "bought"
    assert bought["rescind.tracking.value"] == 12.5
    assert bought["feature_flag.context.id"] == "user-1"
    assert bought["rescind.tracking.attribute.plan"] == "pro"
    assert len([key for key in bought if key.startswith("rescind.tracking.attribute.")]) == 32
    assert left == {"rescind.tracking.name": "left", "feature_flag.provider.name": "rescind"}


def test_rules_meet_the_attributes_as_json(site: Site, flags: OpenFeatureClient) -> None:
    # P7
    at = {"==": [{"var": "seen"}, "2026-11-24T10:00:00.500Z"]}
    plans = {"in": ["pro", {"var": "user.plans"}]}
    targeting = {"if": [{"and": [at, plans, {"==": [{"var": "targetingKey"}, "user-1"]}]}, "off", "on"]}
    definition = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on", "targeting": targeting}
    site.put(FLAG, definition=definition)
    seen = datetime(2026, 11, 24, 12, 0, 0, 500_999, tzinfo=timezone(timedelta(hours=2)))
    context = EvaluationContext("user-1", {"seen": seen, "user": {"plans": ("free", "pro")}})
    until_sync(lambda: flags.get_boolean_value(FLAG, True, context) is False)


def test_every_attribute_becomes_a_json_value() -> None:
    # P6
    deep: Any = []
    deep.append(deep)
    attributes: Any = {
        "text": "a",
        "whole": 3,
        "naive": datetime(2026, 11, 24, 10),  # noqa: DTZ001 - a context may hold one
        "day": date(2026, 11, 24),
        "money": Decimal("12.50"),
        "large": Decimal(12),
        "colour": Colour.RED,
        "nan": math.nan,
        "set": {"b", "a"},
        "bytes": b"a\xff",
        "hostile": Hostile(),
        "nested": {"a": ({"at": datetime(2026, 1, 1, tzinfo=UTC)},), 7: "seven"},
        "cycle": deep,
        "targetingKey": "of the attributes",
    }
    context = context_of(EvaluationContext("user-1", attributes))
    cycle, depth = context.pop("cycle"), 0
    while cycle is not None:
        (cycle,), depth = cycle, depth + 1
    assert depth <= DEPTH_MAX
    assert context == {
        "text": "a",
        "whole": 3,
        "naive": "2026-11-24T10:00:00.000Z",
        "day": "2026-11-24",
        "money": 12.5,
        "large": 12,
        "colour": "red",
        "nan": None,
        "set": ["a", "b"],
        "bytes": "a\ufffd",
        "hostile": None,
        "nested": {"a": [{"at": "2026-01-01T00:00:00.000Z"}], "7": "seven"},
        "targetingKey": "user-1",
    }
    assert context_of(EvaluationContext(None, {"targetingKey": "own"})) == {"targetingKey": "own"}
    assert context_of(EvaluationContext(None, "not a mapping")) == {}  # type: ignore[arg-type]
    assert context_of(None) == {}


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes()
    | st.dates()
    | st.decimals(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.just(Hostile()),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), values))
def test_any_context_can_be_written_as_json(attributes: Mapping[str, Any]) -> None:
    # P6
    context = context_of(EvaluationContext("user-1", attributes))
    assert context["targetingKey"] == "user-1"
    assert context.keys() == {*attributes, "targetingKey"}
    assert json.loads(json.dumps(context, allow_nan=False)) == context
