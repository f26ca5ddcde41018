"""The published JSON Schema holds for the documents that there are, and refuses what the check refuses for its form."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from rescind.cli import yaml12

from sagas.definitions import check
from sagas.definitions.schema import SUBJECTS, schema_of
from tests.sagas.ledger.test_definitions_running import WHOLE, saga, step

ROOT = Path(__file__).resolve().parents[3]
SAGA = Draft202012Validator(schema_of("saga"))
KIND = Draft202012Validator(schema_of("kind"))


def documents() -> dict[str, Any]:
    """Every definition of this repository that somebody may take for an example."""
    golden = json.loads((ROOT / "tests/compatibility/golden/0.1.0/02-saga-put.json").read_text())
    readme = re.search(r"```yaml\n(saga:.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert readme
    return {
        "demo": json.loads((ROOT / "demo/order.json").read_text()),
        "golden": golden["request"],
        "stored": golden["answer"]["document"],
        "readme": yaml12.decode(readme[1]),
        "whole": WHOLE,
    }


def test_the_schemas_are_sound() -> None:
    for subject in SUBJECTS:
        Draft202012Validator.check_schema(schema_of(subject))


@pytest.mark.parametrize("name", ["demo", "golden", "stored", "readme", "whole"])
def test_real_documents_are_valid(name: str) -> None:
    document = documents()[name]
    assert [error.message for error in SAGA.iter_errors(document)] == []
    assert check(document) == []


@pytest.mark.parametrize(
    "document",
    [
        saga(step("a", clas="pivot")),
        saga(step("a", **{"class": "sometimes"})),
        saga(step("a", compensation={"executor": "fax"})),
        saga(step("a", act={"retry": {"age_seconds": -1}})),
        saga(step("a", arguments=["x", 1])),
        saga(step("a"), waits=[{"name": "w"}]),
        saga(step("a"), approve_above={"dollars": 1}),
        {"saga": "order", "version": "1", "flag": "f", "steps": []},
        {},
    ],
)
def test_what_has_not_the_form_is_refused_by_both(document: dict[str, Any]) -> None:
    assert not SAGA.is_valid(document)
    assert check(document)


def test_a_kind_is_one_steps_format() -> None:
    assert KIND.is_valid({"kind": "k", "version": "1", "compensation": {"executor": "worker"}})
    assert not KIND.is_valid({"kind": "k", "version": "1", "steps": []})
