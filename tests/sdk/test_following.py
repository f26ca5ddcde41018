"""Staying current: the stream, restarts of the server, and the last known snapshot."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import rescind

from tests.sdk.conftest import FLAG, Server, Site
from tests.waiting import until


async def test_both_faces_evaluate_and_learn_of_a_kill(site: Site) -> None:
    # P4
    async with rescind.AsyncClient(**site.options) as client:
        with rescind.Client(**site.options) as threaded:
            assert client.boolean(FLAG, False, {"targetingKey": "u"}) is True
            assert threaded.boolean(FLAG, False, {"targetingKey": "u"}) is True
            await asyncio.to_thread(site.kill)
            await until(lambda: not client.boolean(FLAG, True) and not threaded.boolean(FLAG, True))
            details = client.boolean_details(FLAG, True)
            assert (details.value, details.variant, details.reason) == (False, "off", "STATIC")
            assert details.metadata["rescind.killed"] is True


async def test_every_type_has_its_call_and_a_wrong_one_gives_the_default(site: Site) -> None:
    # P6
    for key, value in {"s": "text", "i": 7, "f": 1.5, "o": {"a": [1]}}.items():
        definition = {"state": "ENABLED", "variants": {"on": value, "off": value}, "defaultVariant": "on"}
        await asyncio.to_thread(site.put, key, definition=definition)
    async with rescind.AsyncClient(**site.options) as client:
        await until(lambda: client.status().revision == "1.5")
        assert client.string("s", "") == "text"
        assert client.integer("i", 0) == 7
        assert client.float("f", 0.0) == 1.5
        assert client.object("o", None) == {"a": [1]}
        assert client.integer("s", 3) == 3
        assert client.boolean("missing", True) is True
        assert client.boolean_details("missing", True).error_code == "FLAG_NOT_FOUND"
        assert client.string_details("i", "d").error_code == "TYPE_MISMATCH"


async def test_callbacks_hear_of_changes_and_a_failing_one_hurts_nobody(site: Site) -> None:
    heard: list[rescind.FlagChange] = []

    def fail(_: rescind.FlagChange) -> None:
        raise RuntimeError("a user's fault")

    async def hear(change: rescind.FlagChange) -> None:
        heard.append(change)

    async with rescind.AsyncClient(**site.options) as client:
        client.on_change(FLAG, fail)
        stop = client.on_change(FLAG, hear)
        await asyncio.to_thread(site.kill)
        await until(lambda: [change.killed for change in heard] == [True])
        stop()
        await asyncio.to_thread(site.lift)
        await until(lambda: client.boolean(FLAG, False))
        assert len(heard) == 1


async def test_a_restarted_server_is_found_again_and_no_revision_is_lost_or_taken_back(fragile: Site) -> None:
    # P2
    async with rescind.AsyncClient(**fragile.options) as client:
        seen = [client.core.current.revision]
        client.on_change("*", lambda change: seen.append(change.revision))
        fragile.server.kill()
        await until(lambda: not client.core.follower.connected)
        assert client.boolean(FLAG, False) is True
        await asyncio.to_thread(fragile.server.start)
        await asyncio.to_thread(fragile.kill)
        await until(lambda: client.boolean(FLAG, True) is False)
        assert seen == sorted(seen)


async def test_a_kill_while_the_stream_was_away_is_there_after_the_reconnect(fragile: Site) -> None:
    # P2, P4
    async with rescind.AsyncClient(**fragile.options) as client:
        revision = client.core.current.revision
        fragile.server.kill()
        await until(lambda: not client.core.follower.connected)
        await asyncio.to_thread(fragile.server.start)
        for key in ("a", "b", "c"):
            await asyncio.to_thread(fragile.put, key)
        await asyncio.to_thread(fragile.kill)
        await until(lambda: client.core.current.revision.n == revision.n + 4)
        assert client.boolean(FLAG, True) is False
        assert client.boolean("c", False) is True


async def test_a_service_that_starts_without_a_server_serves_the_last_known_snapshot(fragile: Site) -> None:
    # P6
    await asyncio.to_thread(fragile.kill)
    async with rescind.AsyncClient(**fragile.options) as client:
        await until(lambda: not client.boolean(FLAG, True))
        await until(lambda: any(fragile.state_dir.glob("*/snapshot")))
    fragile.server.kill()
    with rescind.Client(**fragile.options) as threaded:
        assert threaded.boolean(FLAG, True) is False
        assert threaded.status().source == "disk"
    cold = rescind.AsyncClient(**fragile.options)
    assert cold.boolean(FLAG, True) is False
    assert await cold.wait_ready(timeout_seconds=60)
    await cold.close()


async def test_without_any_snapshot_there_is_the_default_and_nothing_waits(mortal: Server, tmp_path: Path) -> None:
    # P6
    mortal.kill()
    client = rescind.Client(url=mortal.url, token="t", state_dir=tmp_path / "none")
    assert client.boolean(FLAG, True) is True
    assert client.string_details(FLAG, "d").error_code == "PROVIDER_NOT_READY"
    assert client.wait_ready(timeout_seconds=0.2) is False
    client.close()


async def test_the_environment_comes_with_the_token_and_instances_sign_off(site: Site) -> None:
    answer = await asyncio.to_thread(
        lambda: site.api.request(
            "POST",
            "/v1/tokens",
            json={"name": "svc", "environment": site.environment, "scopes": ["evaluate", "effects"], "reason": "test"},
        )
    )
    options = {**site.options, "token": answer["token"], "environment": None}
    path = site.api.within("/instances")

    def mine(name: str) -> list[dict[str, object]]:
        rows = site.api.request("GET", path, params={"limit": 1000})["instances"]
        return [row for row in rows if row["instance"] == name]

    async with rescind.AsyncClient(**options) as client:
        assert client.core.api.environment == site.environment
        assert client.boolean(FLAG, False) is True
        name = client.status().instance
        row = (await until(lambda: asyncio.to_thread(mine, name)))[0]
        assert row["live"]
    await client.close()
    row = (await until(lambda: asyncio.to_thread(mine, name)))[0]
    assert row["signed_off_at"] is not None


async def test_closing_is_bounded_when_the_server_hangs(tmp_path: Path) -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    hanging = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = hanging.sockets[0].getsockname()[1]
    client = rescind.Client(url=f"http://127.0.0.1:{port}", token="t", environment="production", state_dir=tmp_path)
    client.ensure_started()
    async with asyncio.timeout(60):
        await asyncio.to_thread(client.close)
        await asyncio.to_thread(client.close)
    hanging.close()
    await hanging.wait_closed()


async def test_a_server_that_refuses_or_is_away_is_said_once_in_a_sentence(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    # P6
    for wrong, said in (
        ({"token": "rsc_nobody_nothing"}, "refuses this token"),
        ({"url": "http://127.0.0.1:9"}, "does not answer"),
    ):
        caplog.clear()
        async with rescind.AsyncClient(**{**site.options, **wrong}) as client:
            await until(lambda: len(caplog.records) > 0)
            failures = client.core.follower.heard_at
            assert client.boolean(FLAG, True) is True
        lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert failures is None
        assert len(lines) == 1, lines
        assert said in lines[0]
        assert "flags are their defaults" in lines[0]
