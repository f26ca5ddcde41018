"""problem+json: over Litestar and over bare ASGI."""

import doctest
import logging
from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import msgspec
import pytest
from litestar import Litestar, get, post
from litestar.params import FromPath, FromQuery, JSONBody

import runtime.problem
from runtime.errors import OutcomeUnknown, Unavailable
from runtime.problem import CONTENT_TYPE, Problem, fault_of, litestar_handlers, send_problem, suggest


class Item(msgspec.Struct):
    key: str
    count: Annotated[int, msgspec.Meta(ge=1)] = 1


class Order(msgspec.Struct):
    items: list[Item]
    names: dict[str, int] = {}


@post("/orders")
async def take(data: JSONBody[Order]) -> int:
    return len(data.items)


@get("/orders")
async def listed(limit: FromQuery[int] = 10) -> int:
    return limit


@get("/raise/{kind:str}")
async def fail(kind: FromPath[str]) -> None:
    raise {
        "problem": Problem(409, "taken", "Taken", "by another", suggestion="other", next_step="wait", retry_after=0.2),
        "away": Unavailable("PostgreSQL", "connection refused", retry_after_seconds=2),
        "unknown": OutcomeUnknown("lost"),
        "unforeseen": RuntimeError("the secret of the house"),
    }[kind]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = Litestar([take, listed, fail], exception_handlers=litestar_handlers, request_max_body_size=1000)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        (b'{"items": [{"key": "a"}, {"key": 1}]}', 422, "/items/1/key"),
        (b'{"items": [{"key": "a", "count": 0}]}', 422, "/items/0/count"),
        (b'{"items": [{}]}', 422, "/items/0"),
        (b'{"items": [], "names": {"x": "y"}}', 422, "/names/*"),
        (b"{}", 422, ""),
        (b"[]", 422, ""),
        (b'{"items": [', 400, ""),
        (b"", 422, ""),
    ],
)
async def test_a_body_that_does_not_fit_is_refused_with_a_pointer(client, body, status, pointer):
    answer = await client.post("/orders", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (status, CONTENT_TYPE)
    assert answer.json()["code"] == "invalid"
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
    assert answer.json()["status"] == status


async def test_a_parameter_that_does_not_fit_is_named(client):
    answer = await client.get("/orders?limit=many")
    assert answer.status_code == 400
    assert "'limit'" in answer.json()["errors"][0]["detail"]


async def test_what_the_router_refuses_is_a_problem_too(client):
    for method, path, status, code in (
        ("GET", "/nowhere", 404, "not_found"),
        ("DELETE", "/orders", 405, "method_not_allowed"),
    ):
        answer = await client.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, CONTENT_TYPE)
        assert answer.json()["code"] == code
    assert set(answer.headers["allow"].replace(" ", "").split(",")) >= {"GET", "POST"}
    answer = await client.post("/orders", content=b'{"items": [' + b" " * 2000)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_problem_says_all_it_knows(client):
    answer = await client.get("/raise/problem")
    assert answer.headers["retry-after"] == "1"
    assert answer.json() == {
        "title": "Taken",
        "status": 409,
        "code": "taken",
        "detail": "by another",
        "suggestion": "other",
        "next_step": "wait",
    }


async def test_a_database_away_is_503_with_retry_after(client):
    answer = await client.get("/raise/away")
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["code"]) == (503, "2", "unavailable")
    assert "connection refused" not in answer.text
    answer = await client.get("/raise/unknown")
    assert (answer.status_code, answer.json()["code"]) == (503, "outcome_unknown")


async def test_the_unforeseen_is_logged_and_not_told(client, caplog):
    with caplog.at_level(logging.ERROR, "rescind.problem"):
        answer = await client.get("/raise/unforeseen")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "the secret of the house" in caplog.text


async def test_a_bare_application_answers_the_same_way():
    async def app(scope, receive, send):
        await send_problem(send, Problem(404, "not_found", detail="no flag 'x'"))

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        answer = await client.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (404, CONTENT_TYPE)
    assert answer.json() == {"title": "Not Found", "status": 404, "code": "not_found", "detail": "no flag 'x'"}


def test_a_fault_stands_under_its_prefix():
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"key": 1}, Item)
    assert fault_of(caught.value, "/flag/definition").pointer == "/flag/definition/key"


def test_nothing_near_is_no_suggestion():
    assert suggest("checkout", ["search", "mail"]) is None
    assert suggest("x" * 100_000, ["search"]) is None


def test_the_examples_hold():
    assert doctest.testmod(runtime.problem).failed == 0
