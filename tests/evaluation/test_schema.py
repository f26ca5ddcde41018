"""flagd's own schema cases: every positive one is accepted, every negative one refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rescind.evaluation import Evaluator, check, check_document

from tests.evaluation.flags import Spec

DATA = Path(__file__).parent / "data/flagd-schemas"


def cases(pattern: str) -> list[Any]:
    paths = sorted(DATA.glob(pattern))
    assert paths
    return [pytest.param(json.loads(path.read_text()), id=f"{path.parent.name}/{path.name}") for path in paths]


@pytest.mark.parametrize("document", cases("flags/positive/*.json") + cases("flagd/positive/*.json"))
def test_a_good_flag_set_has_no_fault_and_compiles(document: Any) -> None:
    assert check_document(document) == []
    flags = document["flags"]
    named = flags if isinstance(flags, dict) else {flag.pop("key"): flag for flag in flags}
    specs = {key: Spec(definition=flag, off_variant=next(iter(flag["variants"]))) for key, flag in named.items()}
    evaluator = Evaluator(specs, document.get("$evaluators"), document.get("metadata"), now=lambda: 0)
    for key in specs:
        assert evaluator.evaluate(key, {"targetingKey": "u"}, None).error_code is None


@pytest.mark.parametrize("document", cases("flags/negative/*.json"))
def test_a_bad_flag_set_is_refused(document: Any) -> None:
    assert check_document(document, arrays=False)


@pytest.mark.parametrize("targeting", cases("targeting/positive/*.json"))
def test_good_targeting_has_no_fault(targeting: Any) -> None:
    faults = check({"state": "ENABLED", "variants": {}, "targeting": targeting})
    assert [fault for fault in faults if fault.pointer.startswith("/targeting")] == []


@pytest.mark.parametrize("targeting", cases("targeting/negative/*.json"))
def test_bad_targeting_is_refused_where_it_is_bad(targeting: Any) -> None:
    faults = check({"state": "ENABLED", "variants": {}, "targeting": targeting})
    assert [fault for fault in faults if fault.pointer.startswith("/targeting/")]
