"""Payloads at rest: sealed wherever they lie, open for whoever has the key, and nothing half done without it (0032)."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from runtime.errors import SettingsError
from runtime.postgres import Postgres
from runtime.sealing import Ring, SealedError
from runtime.settings import Settings
from sagas import sealing
from server.parts import Parts
from tests.sagas.coordinator.world import ENVIRONMENT
from tests.sagas.instances.test_waits import told
from tests.sagas.instances.world import CAPTURE, RESERVE, RETRY, Server, World, claim, step
from tests.server.serving import serving
from tests.waiting import until

KEY, OTHER = (base64.b64encode(bytes([number]) * 32).decode() for number in (3, 4))
SECRETS = ("anna@example.com", "pi_secret", "event secret", "gone@example.com")
TABLES = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
"""


@asynccontextmanager
async def opened(database_url: str, keys: str) -> AsyncIterator[Postgres]:
    """A pool whose payloads are sealed with these keys."""
    pool = await Postgres.open(database_url, application_name="sealed", size_max=6, wait_seconds=10, ring=Ring.read(keys))
    try:
        yield pool
    finally:
        await pool.close()


@pytest.fixture
async def keyed(database_url: str) -> AsyncIterator[Postgres]:
    async with opened(database_url, f"k1:{KEY}") as pool:
        yield pool


async def in_clear(world: World) -> list[tuple[str, str]]:
    """The secrets that any row of any table tells, and where."""
    tables = [table for row in await world.rows(TABLES) for table in row.values()]
    tells = "SELECT EXISTS (SELECT FROM {} AS t WHERE t::text LIKE '%' || $1 || '%')"
    return [(table, secret) for table in tables for secret in SECRETS if await world.value(tells.format(table), secret)]


async def begin(server: Server, identity: str = "o1", **fields: Any) -> None:
    """Start one with a secret in its input."""
    given = {"order_id": identity, "to": "anna@example.com"}
    assert (await server.begin(identity, input=given, **fields)).outcome == "started"


async def test_no_row_tells_what_is_sealed_and_everyone_who_asks_is_told(
    keyed: Postgres, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="rescind")
    server = await world.server(keyed)
    mailed = step("reserve", "to", act={"retry": RETRY, "in_doubt": "look_up"})
    await world.plan(mailed, CAPTURE, step("confirm", "capture"), waits=[{"name": "paid", "before": "confirm", "event": True}])
    await begin(server)
    [reserve] = await server.take()
    assert reserve.effects[0]["payload"] == {"order_id": "o1", "to": "anna@example.com"}
    await server.tell(reserve, "unknown", error={"type": "Timeout"})
    [asked] = await server.take()
    assert asked.effects[0]["payload"]["to"] == "anna@example.com"
    await server.tell(asked, proof={"id": "pi_secret"})
    await told(server, "paid", payload={"note": "event secret"})
    [capture] = await server.take()
    await server.tell(capture, proof={"id": "pi_secret"})
    [confirm] = await server.take()
    assert confirm.effects[0]["payload"]["capture"] == {"id": "pi_secret"}
    shown = await server.shown("o1")
    assert shown["input"]["to"] == "anna@example.com"
    assert shown["steps"][0]["result"] == {"id": "pi_secret"}
    assert {"payload": {"note": "event secret"}, "event_id": None} in [fact["detail"] for fact in shown["history"]]
    await server.tell(reserve, proof={"id": "pi_secret late"})
    await server.tell(confirm, proof="pi_secret")
    assert (await server.ended("o1"))[1]["capture"] == {"id": "pi_secret"}
    assert await in_clear(world) == []
    assert not [secret for secret in SECRETS if secret in caplog.text]


async def test_what_undoes_is_given_what_it_needs(keyed: Postgres, world: World) -> None:  # P10, P15
    server = await world.server(keyed)
    mail = {"executor": "email", "connection": "mail", "to": "{{ effect.payload.to }}", "subject": "s", "body": "b"}
    await world.plan(step("reserve", "to", compensation=mail), CAPTURE)
    await begin(server)
    for _ in range(2):
        [task] = await server.take()
        await server.tell(task, proof={"id": "pi_secret"})
    await world.kill()
    [undo] = await server.take()
    assert undo.effects[0]["result"] == {"id": "pi_secret"}
    await server.tell(undo)
    await until(lambda: world.value("SELECT count(*) = 2 FROM sagas.dispositions WHERE state = 'compensated'"))
    assert [mail["To"] for mail in world.mail.mails] == ["anna@example.com"]
    assert await in_clear(world) == []


async def test_a_second_effect_is_sealed_under_its_own_name(keyed: Postgres, world: World) -> None:  # hazard 2
    server = await world.server(keyed)
    await world.plan(step("reserve", "to"), CAPTURE)
    await begin(server, claim=claim(lease_seconds=0.2))
    [again] = await server.take()
    await server.tell(again, proof={"id": "pi_secret 1"})
    await server.tell(server.tasks[0], proof={"id": "pi_secret 2"})
    assert await world.value("SELECT count(*) FROM sagas.effects WHERE step = 'reserve'") == 2
    await world.kill()
    undone = [undo.effects[0] for undo in [*await server.take(), *await server.take()] if undo.verb == "undo"]
    assert all(one["payload"]["to"] == "anna@example.com" for one in undone)
    assert await in_clear(world) == []


async def test_plain_and_sealed_stand_beside_each_other(keyed: Postgres, world: World, server: Server) -> None:  # P21
    await world.plan(step("reserve", "to"), CAPTURE)
    await begin(server, "plain")
    [task] = await server.take()
    await server.tell(task)
    sealed = await world.server(keyed)
    await server.stop()
    await begin(sealed, "sealed")
    assert sorted(await sealed.act()) == ["capture", "capture", "reserve"]
    assert (await sealed.shown("plain"))["input"]["to"] == (await sealed.shown("sealed"))["input"]["to"] == "anna@example.com"


async def test_without_the_key_nothing_is_done_and_nothing_is_lost(keyed: Postgres, world: World, database_url: str) -> None:
    first = await world.server(keyed)
    await world.plan(RESERVE, CAPTURE)
    await begin(first)
    await first.stop()
    for keys in ("plain", f"k1:{OTHER}"):
        async with opened(database_url, keys) as pool:
            without = await world.server(pool)
            with pytest.raises(SealedError, match="RESCIND_PAYLOAD_KEYS"):
                await without.take(wait_seconds=0)
            await without.stop()
    assert await world.value("SELECT count(*) FROM sagas.effects") == 0
    assert await world.value("SELECT count(*) FROM sagas.ready") == 1
    assert await (await world.server(keyed)).act() == ["reserve", "capture"]


async def test_a_server_without_a_key_that_is_in_use_does_not_start(database_url: str, redis_url: str) -> None:
    async with opened(database_url, f"k1:{KEY}") as pool, pool.connection() as connection:
        await sealing.check(connection)
    for keys, says in (("plain", "add it to RESCIND_PAYLOAD_KEYS"), (f"k1:{OTHER}", "another than it was sealed with")):
        settings = Settings(database_url=database_url, redis_url=redis_url, payload_keys=Ring.read(keys))
        with pytest.raises(SettingsError, match=says):
            await Parts.open(settings)
    async with serving(database_url, redis_url, payload_keys=Ring.read(f"k2:{OTHER},k1:{KEY}")):
        pass
    async with serving(database_url, redis_url, payload_keys=Ring.read(f"plain,k2:{OTHER},k1:{KEY}")):
        pass


async def test_over_http_effects_are_told_open_and_a_preview_adds_up_their_money(
    database_url: str, redis_url: str, world: World
) -> None:
    ring = Ring.read(f"k1:{KEY}")
    async with serving(database_url, redis_url, payload_keys=ring) as served:
        http: httpx.AsyncClient = served.http
        within = f"/v1/environments/{ENVIRONMENT}"
        flag = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}
        put = await http.put(f"{within}/flags/f", json={"flag": {"key": "f", "definition": flag}, "reason": "r"})
        assert put.is_success, put.text
        payload = {"amount_cents": 1299, "currency": "usd", "to": "gone@example.com"}
        kind = {"kind": "k", "version": "1", "class": "irreversible"}
        assert (await http.put(f"{within}/kinds/k/versions/1", json=kind, params={"reason": "r"})).is_success
        ask = {"key": "a", "kind": "k", "kind_version": "1", "flag": "f", "payload": payload}
        [admitted] = (await http.post(f"{within}/effects:admit", json={"effects": [ask]})).json()["results"]
        report = {"effect_id": admitted["effect_id"], "token": admitted["token"], "outcome": "succeeded", "result": "pi_secret"}
        await http.post(f"{within}/effects:report", json={"reports": [report]})
        [replayed] = (await http.post(f"{within}/effects:admit", json={"effects": [ask]})).json()["results"]
        assert (replayed["outcome"], replayed["result"]) == ("replayed", "pi_secret")
        headers = {"idempotency-key": "again"}
        kept = [await http.post(f"{within}/effects:admit", json={"effects": [ask]}, headers=headers) for _ in range(2)]
        assert [answer.json()["results"][0]["result"] for answer in kept] == ["pi_secret"] * 2
        assert kept[1].headers["idempotent-replayed"] == "true"
        assert not await world.value("SELECT bool_or(position('pi_secret'::bytea IN body) > 0) FROM runtime.requests")
        [shown] = (await http.get(f"{within}/effects", params={"flag": "f"})).json()["effects"]
        assert (shown["payload"], shown["result"]) == (payload, "pi_secret")
        preview = (await http.get(f"{within}/flags/f/kill-preview")).text
        assert "1299" in preview
    assert await in_clear(world) == []
