"""`rescind serve` and `rescind migrate`: what stands in their way is said in a sentence, and waited for where it may pass."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import httpx
import pytest

from runtime.embedded import free_port
from runtime.postgres import Postgres
from tests.server.processes import Process, rescind
from tests.server.serving import P, admin_token, serving
from tests.waiting import until, until_sync


@pytest.fixture
def started() -> Iterator[list[Process]]:
    """What a test has started; stopped at its end."""
    processes: list[Process] = []
    yield processes
    for process in processes:
        process.end(signal.SIGKILL)


def test_every_wrong_setting_is_named_at_once() -> None:
    done = rescind("serve", "--roles", "flags,coffee", RESCIND_HTTP_PORT="many")
    assert done.returncode == 1
    for name in ("RESCIND_DATABASE_URL", "RESCIND_REDIS_URL", "RESCIND_HTTP_PORT", "coffee"):
        assert name in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_it_waits_for_postgresql_and_says_so_and_stops_when_told(started: list[Process]) -> None:
    away = f"postgresql://nobody:x@127.0.0.1:{free_port()}/postgres"
    variables = {"RESCIND_DATABASE_URL": away, "RESCIND_REDIS_URL": "redis://127.0.0.1:9/0"}
    process = Process(["serve", "--http-port", "0"], variables=variables)
    started.append(process)
    until_sync(lambda: "waiting for PostgreSQL" in process.output)
    assert process.end(signal.SIGTERM) == 1
    assert "Traceback" not in process.output


async def test_it_refuses_a_database_that_was_not_migrated_until_it_is(
    empty_database_url: str, redis_url: str, started: list[Process]
) -> None:
    variables = {"RESCIND_DATABASE_URL": empty_database_url, "RESCIND_REDIS_URL": redis_url}
    refused = await asyncio.to_thread(rescind, "serve", "--http-port", "0", **variables)
    assert (refused.returncode, "rescind migrate" in refused.stderr) == (1, True), refused
    pending = await asyncio.to_thread(rescind, "migrate", "--check", **variables)
    assert (pending.returncode, "rollbacks/0001_pre_kill.sql" in pending.stdout) == (1, True), pending
    applied = await asyncio.to_thread(rescind, "migrate", **variables)
    assert (applied.returncode, "applied" in applied.stdout) == (0, True), applied
    again = await asyncio.to_thread(rescind, "migrate", "--check", **variables)
    assert (again.returncode, again.stdout) == (0, "nothing is pending\n"), again
    process = Process(["serve", "--http-port", "0"], variables=variables)
    started.append(process)
    await asyncio.to_thread(process.wait_ready)
    assert await asyncio.to_thread(process.end) == 0


async def test_flagds_listeners_are_there_where_an_environment_is_named(
    database_url: str, redis_url: str, started: list[Process]
) -> None:
    variables = {
        "RESCIND_DATABASE_URL": database_url, "RESCIND_REDIS_URL": redis_url, "RESCIND_SYNC_PORT": "0",
        "RESCIND_EVALUATION_PORT": "0", "RESCIND_GRPC_ENVIRONMENT": "producton",
    }  # fmt: skip
    process = Process(["serve", "--http-port", "0"], variables=variables)
    started.append(process)
    await asyncio.to_thread(process.wait_ready)
    for told in ("flagd.sync.v1: 127.0.0.1:", "flagd.evaluation.v1, v2: 127.0.0.1:", "no environment 'producton'"):
        assert told in process.output
    assert await asyncio.to_thread(process.end) == 0


async def test_open_streams_end_with_the_server_and_are_not_cut_off(
    database_url: str, redis_url: str, started: list[Process]
) -> None:
    admin = await admin_token(database_url)
    process = Process(
        ["serve", "--http-port", "0"], variables={"RESCIND_DATABASE_URL": database_url, "RESCIND_REDIS_URL": redis_url}
    )
    started.append(process)
    url = await asyncio.to_thread(process.wait_ready)
    headers = {"authorization": f"Bearer {admin}", "x-rescind-environment": "production"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        bulk = (await client.post("/ofrep/v1/evaluate/flags", json={"context": {}})).json()
        target = bulk["eventStreams"][0]["endpoint"]["requestUri"]
        async with client.stream("GET", target) as events, client.stream("GET", f"{P}/stream") as stream:
            lines = [one.aiter_lines() for one in (events, stream)]
            assert [await anext(one) for one in lines] == ["retry: 1000", "event: snapshot"]
            ending = asyncio.create_task(asyncio.to_thread(process.end))
            for one in lines:
                assert [line async for line in one if line.startswith("event: change")] == []
            assert await ending == 0
    assert "Traceback" not in process.output


async def test_a_server_forgets_the_answers_of_keys_older_than_a_day(database_url: str, redis_url: str) -> None:
    pg = await Postgres.open(database_url, application_name="tests", size_max=1)
    try:
        async with pg.connection() as connection:
            for key, age in (("old", "25 hours"), ("young", "23 hours")):
                await connection.execute(
                    "INSERT INTO runtime.requests (token_id, idempotency_key, fingerprint, created_at) "
                    f"VALUES ('t', '{key}', '', clock_timestamp() - interval '{age}')"
                )

        async def forgotten() -> bool:
            async with pg.connection() as connection:
                rows = await connection.fetch("SELECT idempotency_key FROM runtime.requests")
            return [row[0] for row in rows] == ["young"]

        async with serving(database_url, redis_url):
            await until(forgotten)
    finally:
        await pg.close()
