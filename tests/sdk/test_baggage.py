"""Baggage and headers as anyone may send them: read within bounds, never raised for (P3)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import context as otel
from opentelemetry.baggage import get_all
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from rescind.baggage import BYTES_MAX, MEMBERS_MAX, VALUES_MAX, is_ours, revisions_in, with_revision, without_revision
from rescind.header import AHEAD_MAX, GENERATIONS_AHEAD_MAX, read_header
from rescind.strip import stripped, stripped_bytes
from rescind.wire import BAGGAGE_KEY, HEADER, Revision

CURRENT = Revision(1, 42)
pieces = st.sampled_from(
    [BAGGAGE_KEY, "rescind%2Erev", "RESCIND.REV", "rescind%252erev", "=", ",", ";", " ", "\t", "%", "%ZZ", "production.1.43"]
)
texts = st.lists(pieces | st.text(st.characters(max_codepoint=255), max_size=8), max_size=40).map("".join)
raw = st.lists(st.binary(max_size=300) | texts.map(lambda text: text.encode("latin-1")), max_size=12)


@given(raw, st.integers(0, 1) | st.integers(0, 2**70))
@example([b"production.1.43" + b"," * 20_000], 42)
@example([b"rescind.rev=" * 5_000], 42)
@example([b""] * 12, 0)
def test_whatever_comes_is_read_without_raising_and_believed_within_bounds(values: list[bytes], n: int) -> None:
    # P3
    current = Revision(1, n)
    members = revisions_in(values)
    assert len(members) <= VALUES_MAX
    for seen in (read_header(values, "production", current), read_header(members, "production", current)):
        if seen is not None and current != Revision():
            assert seen.generation <= current.generation + GENERATIONS_AHEAD_MAX
            assert seen.generation != current.generation or seen.n <= current.n + AHEAD_MAX


class Counted(list[bytes]):
    """Header values that count how many of them are looked at."""

    looked = 0

    def __iter__(self) -> Any:
        for value in super().__iter__():
            self.looked += 1
            yield value


@pytest.mark.parametrize("value", [b"x", b"rescind.rev=x", b"rescind.rev=production.1.43", b"a=1," * 3_000])
def test_of_many_headers_few_are_looked_at(value: bytes) -> None:
    # P3
    many = Counted([value] * 10_000)
    revisions_in(many)
    assert many.looked <= MEMBERS_MAX
    again = Counted([value] * 10_000)
    read_header(again, "production", CURRENT)
    assert again.looked <= 5


@given(texts)
def test_an_edge_leaves_nothing_that_a_propagator_behind_it_could_make_ours(text: str) -> None:
    # P3: whatever it decodes, once and at the next hop again
    assert not any(is_ours(member) for member in without_revision(text).split(","))
    carrier = {"baggage": without_revision(text)}
    for _ in range(3):
        context = W3CBaggagePropagator().extract(carrier, context=otel.Context())
        assert BAGGAGE_KEY not in get_all(context)
        carrier = {}
        W3CBaggagePropagator().inject(carrier, context=context)


@given(st.lists(st.tuples(st.sampled_from([HEADER, "Baggage", "Rescind-Revision", "x"]), texts), max_size=6))
def test_an_edge_takes_away_what_is_ours_and_nothing_else(headers: list[tuple[str, str]]) -> None:
    # P3
    left = stripped(headers)
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    assert stripped_bytes(encoded) == [(name.encode(), value.encode("latin-1")) for name, value in left]
    assert {name.lower() for name, _ in left} <= {"baggage", "x"}
    assert [pair for pair in left if pair[0] == "x"] == [pair for pair in headers if pair[0] == "x"]


@pytest.mark.parametrize(
    "name", ["rescind.rev", " Rescind.Rev ", "rescind%2Erev", "rescind%252Erev", "rescind%25252525252Erev"]
)
def test_a_name_is_ours_however_often_it_is_encoded(name: str) -> None:
    # P3
    assert without_revision(f"a=1,{name}=production.1.42,b=%20") == "a=1,b=%20"


def test_what_others_put_there_stays_as_it_is_within_the_limits_of_the_standard() -> None:
    # P3; https://www.w3.org/TR/baggage/#limits
    value = "production.1.42"
    assert with_revision("", value) == "rescind.rev=production.1.42"
    assert with_revision(" a = 1 ;p, b=%20", value) == "rescind.rev=production.1.42, a = 1 ;p, b=%20"
    assert with_revision("a=1,rescind.rev=production.1.7;x=y", value) == "rescind.rev=production.1.42,a=1"
    full = ",".join(f"k{number}=v" for number in range(MEMBERS_MAX))
    assert with_revision(full, value) == full
    assert with_revision(full.rpartition(",")[0], value).count(",") == MEMBERS_MAX - 1
    long = "a=" + "x" * (BYTES_MAX - 2)
    assert with_revision(long, value) == long
    assert with_revision(f"rescind.rev=production.1.7,{long}", value) == long


def test_the_latest_member_counts() -> None:
    # P3
    members = revisions_in([b"a=1,rescind.rev=production.1.44;p=1", "rescind.rev = production%2E1.45 "])
    assert members == ["production.1.44", "production.1.45"]
    assert read_header(members, "production", CURRENT) == Revision(1, 45)
