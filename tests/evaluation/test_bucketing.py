"""Bucketing is the same in every language (P7): canonical CBOR, MurmurHash3, integer arithmetic, two generations."""

from __future__ import annotations

from typing import Any

import cbor2
import mmh3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rescind.evaluation import Evaluator, moved
from rescind.evaluation.bucketing import default_seat, encode, prefix, seat, thresholds

from tests.evaluation.flags import Spec, flag, resolve

QUARTERS = {"fractional": [["a", 25], ["b", 25], ["c", 25], ["d", 25]]}
LETTERS = {letter: letter for letter in "abcd"}

keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | keys,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=20,
)


def normalised(value: Any) -> Any:
    """Whole floats within 64 bits as integers, as flagd's decision record asks."""
    if isinstance(value, dict):
        return {key: normalised(item) for key, item in value.items()}
    if isinstance(value, list):
        return [normalised(item) for item in value]
    if isinstance(value, float) and value.is_integer() and -(2**63) <= value <= 2**64 - 1:
        return int(value)
    return value


@given(json_values)
def test_the_encoding_is_canonical_cbor(value: Any) -> None:
    assert encode(value) == cbor2.dumps(normalised(value), canonical=True)


@given(keys, keys.filter(bool))
def test_the_default_seat_hashes_flag_key_and_targeting_key(flag_key: str, targeting_key: str) -> None:
    expected = mmh3.hash(cbor2.dumps([flag_key, targeting_key], canonical=True), signed=False)
    assert default_seat(prefix(flag_key, "v3"), targeting_key, "v3") == expected
    older = mmh3.hash((flag_key + targeting_key).encode(), signed=False)
    assert default_seat(prefix(flag_key, "v2"), targeting_key, "v2") == older


@given(keys, keys, st.lists(st.integers(0, 1000), min_size=1, max_size=6).filter(any), st.sampled_from(["v2", "v3"]))
def test_a_compiled_split_gives_the_share_of_the_arithmetic(
    flag_key: str, user: str, weights: list[int], generation: str
) -> None:
    variants = {str(index): index for index in range(len(weights))}
    targeting = {"fractional": [[name, weight] for name, weight in zip(variants, weights, strict=True)]}
    outcome = resolve(
        flag(targeting, variants=variants, default=None), {"targetingKey": user}, key=flag_key, generation=generation
    )
    place = default_seat(prefix(flag_key, generation), user, generation)
    if place is None:
        assert outcome.variant is None
        return
    bucket = (place * sum(weights)) >> 32
    assert outcome.value == next(index for index in range(len(weights)) if bucket < sum(weights[: index + 1]))


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5))
def test_a_threshold_is_where_the_bucket_changes(place: int, weights: list[int]) -> None:
    ends = thresholds(weights)
    if not 0 < sum(weights) < 2**31:
        assert ends is None
        return
    assert ends is not None
    bucket = (place * sum(weights)) >> 32
    assert [place < end for end in ends] == [bucket < sum(weights[: index + 1]) for index in range(len(weights))]


def test_the_seat_at_a_threshold_is_in_the_next_share() -> None:
    ends = thresholds([1, 1, 1])
    assert ends is not None
    for index, end in enumerate(ends[:2]):
        assert ((end - 1) * 3) >> 32 == index
        assert (end * 3) >> 32 == index + 1


@pytest.mark.parametrize(
    ("value", "share"),
    [
        ("joe", "c"),
        (1, "d"),
        (1.0, "d"),
        (1.5, "a"),
        (-7, "a"),
        (True, "a"),
        ({"b": 1, "a": [1.0, "x"]}, "c"),
        ("", "a"),
        ("é-ü", "a"),
        (2**63, "c"),
        (1e300, "c"),
        (None, None),
        (float("nan"), "a"),
    ],
)
def test_a_named_bucketing_value_falls_where_flagds_core_lets_it_fall(value: Any, share: str | None) -> None:
    targeting = {"fractional": [{"var": "unit"}, *QUARTERS["fractional"]]}
    outcome = resolve(flag(targeting, variants=LETTERS, default=None), {"unit": value, "targetingKey": "u"})
    if value == value:
        assert outcome.variant == share
    assert outcome.error_code is None


@pytest.mark.parametrize("generation", ["v2", "v3"])
def test_a_key_of_a_length_that_was_met_before_is_hashed_as_the_first(generation: str) -> None:
    spec = Spec(definition=flag(QUARTERS, variants=LETTERS, default=None))
    evaluator = Evaluator({"flag": spec}, generation=generation)
    start = prefix("flag", generation)
    for user in [f"{'ü' * (number % 90)}{number}" for number in range(400)]:
        place = default_seat(start, user, generation)
        assert place is not None
        assert evaluator.evaluate("flag", {"targetingKey": user}, None).variant == "abcd"[(place * 4) >> 32]


def test_users_fall_where_flagds_core_lets_them_fall() -> None:
    definition = flag(QUARTERS, variants=LETTERS, default="a")
    shares = [resolve(definition, {"targetingKey": f"user-{n}"}, key="checkout.new-flow").variant for n in range(12)]
    assert "".join(str(share) for share in shares) == "dadbdbaaccac"


def test_a_list_as_bucketing_value_is_the_first_share() -> None:
    targeting = {"fractional": [{"merge": ["a", 1]}, ["b", 0]]}
    assert resolve(flag(targeting, variants=LETTERS, default="c"), {"targetingKey": "u"}).variant == "a"


@pytest.mark.parametrize(
    ("weights", "variant"),
    [
        ([{"-": [{"var": "$flagd.timestamp"}, 1_700_000_000]}, 0], "a"),
        ([{"-": [5, 10]}, 1], "b"),
        ([{"/": [100, 2]}, 0], "a"),
        ([{"var": "gone"}, 1], "c"),
        ([{"var": "text"}, 1], "c"),
        ([{"+": [1, 0.5]}, 1], "c"),
        ([0, 0], "c"),
        ([True, 1], "c"),
        ([2**31 - 1, 1], "c"),
    ],
)
def test_weights_may_be_rules_and_what_is_no_weight_decides_nothing(weights: list[Any], variant: str) -> None:
    targeting = {"fractional": [["a", weights[0]], ["b", weights[1]]]}
    outcome = resolve(flag(targeting, variants=LETTERS, default="c"), {"targetingKey": "u", "text": "5"})
    assert outcome.variant == variant


def test_the_shares_of_a_split_are_as_large_as_its_weights() -> None:
    definition = flag({"fractional": [["on", 25], ["off", 75]]})
    on = sum(resolve(definition, {"targetingKey": f"user-{n}"}).value for n in range(4000))
    assert 900 < on < 1100


def test_the_second_generation_hashes_the_text() -> None:
    targeting = {"fractional": [{"cat": [{"var": "$flagd.flagKey"}, {"var": "email"}]}, *QUARTERS["fractional"]]}
    context = {"email": "a@b.com"}
    outcome = resolve(flag(targeting, variants=LETTERS), context, generation="v2")
    assert outcome.variant == "abcd"[(mmh3.hash("flaga@b.com", signed=False) * 4) >> 32]
    assert seat(7, "v2") is None


def test_who_moves_between_the_generations_is_known() -> None:
    users = [f"user-{n}" for n in range(200)]
    definition = flag(QUARTERS, variants=LETTERS)
    movers = moved("flag", [25, 25, 25, 25], users)
    changed = [
        user
        for user in users
        if resolve(definition, {"targetingKey": user}, generation="v2").variant
        != resolve(definition, {"targetingKey": user}, generation="v3").variant
    ]
    assert movers == changed
    assert len(movers) > 100
