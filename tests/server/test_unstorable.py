"""What PostgreSQL cannot store is refused, wherever it is sent: no answer is 500, and the place is named where it is known."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.server import bodies
from tests.server.bodies import BODIES, E
from tests.server.serving import Served

METHODS = ("get", "put", "post", "delete", "patch")
NUL = "a\0b"
ODD_TEXTS: list[Any] = [
    NUL, "\ud800", "ab" * 10_000, 2**63, f"1.{2**63}", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", {NUL: 1},
]  # fmt: skip
ODD_VALUES: list[Any] = [NUL, 2**63, -(2**63) - 1, 10**30]
IN_PATHS = ["a%00b", "a%2500b", "%ED%A0%80", "%FF", "a" * 3_000]
IN_QUERIES = [
    "a%00b",
    "%ED%A0%80",
    "9" * 19,
    "-" + "9" * 19,
    "9" * 400,
    "1e400",
    "nan",
    "ab" * 3_000,
    "0001-01-01T00:00:00%2B14:00",
]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of the leaves of a document."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = False
    for name, child in children:
        found = True
        yield from places(child, (*at, name))
    if not found:
        yield at


def changed(value: Any, at: tuple[Any, ...], leaf: Any) -> Any:
    """The document with another leaf."""
    if not at:
        return leaf
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = changed(value[at[0]], at[1:], leaf)
    return copy


async def ways(served: Served) -> list[tuple[str, str, list[str]]]:
    """Method, path template and names of query parameters of everything in the API's own description."""
    paths = (await served.ok("GET", "/docs/openapi.json"))["paths"]
    return [
        (method.upper(), path, [one["name"] for one in told.get("parameters", []) if one["in"] == "query"])
        for path, methods in paths.items()
        for method, told in methods.items()
        if method in METHODS
    ]


async def send(served: Served, method: str, path: str, body: Any, **headers: str) -> httpx.Response:
    """One request, its body as plain JSON with every character escaped."""
    content = None if body is None else json.dumps(body).encode()
    return await served.http.request(method, path, content=content, headers={"content-type": "application/json", **headers})


async def oddly(
    served: Served, method: str, path: str, body: Any, **headers: str
) -> AsyncIterator[tuple[tuple[Any, ...], Any, httpx.Response]]:
    """Place, odd value and answer for every odd value at every leaf of the body."""
    for place in places(body) if body is not None else ():
        leaf = functools.reduce(lambda value, step: value[step], place, body)
        for odd in ODD_TEXTS if isinstance(leaf, str) else ODD_VALUES:
            yield place, odd, await send(served, method, path, changed(body, place, odd), **headers)


def is_told(answer: httpx.Response, path: str, place: tuple[Any, ...]) -> bool:
    """Whether a NUL was refused with its place, where it is for people to know."""
    if path in bodies.TOLERANT | bodies.UNKEPT:
        return True
    pointers = {fault["pointer"] for fault in answer.json()["errors"]} if answer.status_code == 422 else set()
    return bool(pointers) if path in bodies.WITHOUT_PLACE else "/" + "/".join(map(str, place)) in pointers


@pytest.fixture(autouse=True)
def _nothing_unforeseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR] == []


async def test_the_table_has_every_way_to_write(served: Served) -> None:
    writes = {(method, path) for method, path, _ in await ways(served) if method != "GET"}
    assert writes == set(BODIES)


async def test_no_field_of_a_body_makes_a_500(served: Served) -> None:
    failed: dict[Any, Any] = {}
    for number, (method, path) in enumerate(BODIES):
        named = await bodies.names(served, number)
        at, body = bodies.filled(path, named), BODIES[method, path]
        if path.endswith("/rollout") and method == "DELETE":
            await served.ok("POST", at, BODIES["POST", path])
        tried = [one async for one in oddly(served, method, at, body)]
        for place, odd, answer in tried:
            if answer.status_code >= 500 or (odd == NUL and not is_told(answer, path, place)):
                failed[method, path, place, str(odd)[:40]] = answer.text
        answer = await send(served, method, at, body)
        works = [one.status_code < 300 for one in (answer, *(one for _, _, one in tried))]
        assert any(works), (method, path, answer.text)
    assert failed == {}


@pytest.mark.parametrize("path", [E + "/effects:admit", E + "/effects:report", E + "/heartbeats"])
async def test_nor_on_the_way_round_the_short_one(served: Served, path: str) -> None:
    at = bodies.filled(path, await bodies.names(served))
    answers = [one async for one in oddly(served, "POST", at, BODIES["POST", path], accept="application/msgpack")]
    assert [(place, odd) for place, odd, answer in answers if answer.status_code >= 500] == []


async def test_no_name_in_a_path_makes_a_500(served: Served) -> None:
    named, failed = await bodies.names(served), {}
    for method, path, _ in await ways(served):
        for placeholder in [part[1:-1] for part in path.split("/") if part.startswith("{")]:
            for odd in IN_PATHS:
                at = bodies.filled(path, {**named, placeholder: odd})
                answer = await send(served, method, at, BODIES.get((method, path)))
                if answer.status_code >= 500:
                    failed[method, path, placeholder, odd[:20]] = answer.status_code
    assert failed == {}


async def test_no_parameter_of_a_query_makes_a_500(served: Served) -> None:
    named, failed = await bodies.names(served), {}
    for method, path, parameters in await ways(served):
        more = ["since", "scope.country"] if path.endswith("kill-preview") else ["reason"] if path.endswith("{name}") else []
        for name in [*parameters, *more]:
            for odd in IN_QUERIES:
                at = f"{bodies.filled(path, named)}?{quote(name)}={odd}"
                answer = await send(served, method, at, BODIES.get((method, path)))
                if answer.status_code >= 500:
                    failed[method, path, name, odd[:20]] = answer.status_code
    assert failed == {}


async def test_nor_do_the_bare_applications(served: Served) -> None:
    await bodies.names(served)
    for odd in IN_PATHS:
        for path in (f"/v1/environments/{odd}/stream", f"/v1/environments/{odd}/snapshot", f"/ofrep/v1/evaluate/flags/{odd}"):
            method = "POST" if "ofrep" in path else "GET"
            answer = await send(served, method, path, {"context": {}}, **{"x-rescind-environment": "production"})
            assert 400 <= answer.status_code < 500, path
        assert (await send(served, "GET", f"/ofrep/v1/events?grant={odd}", None)).status_code == 401
    for odd in [*ODD_TEXTS, *ODD_VALUES]:
        context = {"context": {"targetingKey": "ann", "odd": odd}}
        answer = await send(served, "POST", "/ofrep/v1/evaluate/flags/g", context, **{"x-rescind-environment": "production"})
        assert answer.status_code < 500, odd
