"""Idempotency-Key: a repeated write is answered, not done again."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from runtime import tokens
from runtime.idempotency import BODY_BYTES_MAX, IdempotencyMiddleware, Requests
from runtime.postgres import Postgres
from runtime.tokens import Verifier


class Counter:
    """An application that counts what it did; a body tells it how to answer."""

    def __init__(self) -> None:
        self.count = 0
        self.entered = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, scope, receive, send) -> None:
        body = (await receive())["body"]
        self.entered.set()
        await self.go.wait()
        self.count += 1
        if body == b"raise":
            raise RuntimeError("broken")
        status = 503 if body == b"away" else 202
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"done ", "more_body": True})
        await send({"type": "http.response.body", "body": str(self.count).encode()})


@pytest.fixture
def app() -> Counter:
    return Counter()


@pytest.fixture
async def token(pg: Postgres) -> str:
    async with pg.transaction() as connection:
        return (await tokens.create(connection, "t", None, ["admin"], "tests"))[0]


@pytest.fixture
async def client(pg: Postgres, app: Counter, token: str) -> AsyncIterator[httpx.AsyncClient]:
    guarded = IdempotencyMiddleware(app, Requests(pg), Verifier(pg))
    transport = httpx.ASGITransport(app=guarded)
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        yield client


def key(text: str) -> dict[str, str]:
    return {"idempotency-key": text}


async def test_a_repeated_write_is_answered_from_memory(client, app):
    first = await client.post("/kill", content=b"x", headers=key("k"))
    again = await client.post("/kill", content=b"x", headers=key('"k"'))
    assert app.count == 1
    assert (first.status_code, first.text) == (again.status_code, again.text) == (202, "done 1")
    assert again.headers["content-type"] == "text/plain"
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers


async def test_another_payload_or_path_under_the_key_is_422(client, app):
    await client.post("/kill", content=b"x", headers=key("k"))
    for path, body in (("/kill", b"y"), ("/lift", b"x"), ("/kill?a=1", b"x")):
        answer = await client.post(path, content=body, headers=key("k"))
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert app.count == 1


async def test_a_write_in_progress_is_409(client, app):
    app.go.clear()
    first = asyncio.create_task(client.post("/kill", content=b"x", headers=key("k")))
    await app.entered.wait()
    answer = await client.post("/kill", content=b"x", headers=key("k"))
    assert (answer.status_code, answer.json()["code"]) == (409, "request_in_progress")
    assert answer.headers["retry-after"] == "1"
    app.go.set()
    assert (await first).status_code == 202
    assert app.count == 1


async def test_a_server_error_is_not_kept(client, app):
    assert (await client.post("/kill", content=b"away", headers=key("k"))).status_code == 503
    assert (await client.post("/kill", content=b"away", headers=key("k"))).text == "done 2"
    with pytest.raises(RuntimeError):
        await client.post("/kill", content=b"raise", headers=key("r"))
    with pytest.raises(RuntimeError):
        await client.post("/kill", content=b"raise", headers=key("r"))
    assert app.count == 4


async def test_a_caller_who_leaves_gives_the_key_back(client, app):
    app.go.clear()
    first = asyncio.create_task(client.post("/kill", content=b"x", headers=key("k")))
    await app.entered.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    app.go.set()
    assert (await client.post("/kill", content=b"x", headers=key("k"))).text == "done 1"


async def test_whoever_vanished_blocks_the_key_for_a_minute_at_most(client, app, pg, token):
    requests = Requests(pg)
    await client.post("/kill", content=b"x", headers=key("k"))
    async with pg.connection() as connection:
        await connection.execute("UPDATE runtime.requests SET status = NULL")
    assert (await client.post("/kill", content=b"x", headers=key("k"))).status_code == 409
    async with pg.connection() as connection:
        await connection.execute("UPDATE runtime.requests SET created_at = created_at - interval '61 seconds'")
    assert (await client.post("/kill", content=b"x", headers=key("k"))).text == "done 2"
    async with pg.connection() as connection:
        await connection.execute("UPDATE runtime.requests SET created_at = created_at - interval '25 hours'")
    await requests.purge()
    assert (await client.post("/kill", content=b"y", headers=key("k"))).text == "done 3"


async def test_keys_belong_to_their_token(client, app, pg):
    async with pg.transaction() as connection:
        other, _ = await tokens.create(connection, "o", None, ["admin"], "tests")
    await client.post("/kill", content=b"x", headers=key("k"))
    await client.post("/kill", content=b"x", headers={**key("k"), "authorization": f"Bearer {other}"})
    assert app.count == 2


async def test_reads_and_writes_without_a_key_pass_untouched(client, app, pg):
    await client.post("/kill", content=b"x")
    await client.get("/kill", headers=key("k"))
    assert app.count == 2
    async with pg.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM runtime.requests") == 0


async def test_what_cannot_be_accepted_is_refused_before_anything_is_done(client, app):
    assert (await client.post("/kill", headers={**key("k"), "authorization": "Bearer x"})).status_code == 401
    assert (await client.post("/kill", headers=key("k" * 256))).status_code == 400
    assert (await client.post("/kill", headers=key('""'))).status_code == 400
    assert (await client.post("/kill", content=b"x" * (BODY_BYTES_MAX + 1), headers=key("k"))).status_code == 413
    assert app.count == 0
