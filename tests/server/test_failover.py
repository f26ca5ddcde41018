"""A primary that is lost under load and a synchronous standby that is promoted: nothing acknowledged is lost, all come back."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import rescind

from runtime.embedded import EmbeddedPostgres, EmbeddedStandby
from runtime.migrations import migrate
from runtime.postgres import connect
from server.migrations import ROOMS
from tests.failover import Pair, fail_over, paired
from tests.server.processes import Process
from tests.server.serving import P, admin_token, definition
from tests.waiting import until

FLAG, BAD, WORSE = "checkout.new-flow", "search", "prices"
BEFORE, AFTER = 40, 40
CALLERS = 4
AWAY = (500, 502, 503, 504)
SHOP = """
import rescind

order = rescind.Saga("order", version="1", flag="checkout.new-flow")

@order.step(kind="seat.reserved", key="seat:{order_id}")
async def reserve(order_id: str) -> str:
    return f"seat of {order_id}"

@reserve.compensation
async def release(effect: rescind.Effect) -> None:
    pass

@order.step(kind="mail.sent", key="mail:{order_id}", step_class="irreversible")
async def confirm(order_id: str, reserve: str) -> None:
    pass
"""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """A migrated primary and the standby that it waits for."""
    with EmbeddedPostgres(tmp_path / "primary") as primary:
        asyncio.run(migrate(primary.url, ROOMS))
        with EmbeddedStandby(tmp_path / "standby", primary) as standby:
            asyncio.run(paired(primary))
            yield Pair(primary, standby)


class Shop:
    """A server and a worker as processes, a client of each kind, and what was acknowledged to them."""

    def __init__(self, http: httpx.AsyncClient, client: rescind.AsyncClient, processes: list[Process]) -> None:
        self.http = http
        self.client = client
        self.processes = processes
        names: dict[str, Any] = {"__name__": "shop"}
        exec(SHOP, names)
        self.order: rescind.Saga = names["order"]
        self.effects: dict[str, str] = {}
        self.reported: set[str] = set()
        self.started: set[str] = set()
        self.refused: list[str] = []

    async def act(self, caller: int, ended: asyncio.Event) -> None:
        """Admit, report and start, one after the other, whatever is away."""
        number = 0
        while not ended.is_set():
            name = f"{caller}-{number}"
            number += 1
            with suppress(httpx.HTTPError, rescind.RescindError):
                await self._effect(name)
                await self.client.start(self.order, id=name, input={"order_id": name})
                self.started.add(name)

    async def _effect(self, name: str) -> None:
        effect = {"key": name, "kind": "mail", "flag": FLAG, "payload": {}, "variant": "on"}
        answer = await self._post("/effects:admit", {"effects": [effect]})
        if answer is None:
            return
        (admitted,) = answer["results"]
        if admitted["outcome"] != "admitted":
            self.refused.append(admitted["outcome"])
            return
        self.effects[name] = admitted["effect_id"]
        report = {"effect_id": admitted["effect_id"], "token": admitted["token"], "outcome": "succeeded", "result": {}}
        answer = await self._post("/effects:report", {"reports": [report]})
        if answer is not None and answer["results"][0]["outcome"] == "recorded":
            self.reported.add(name)

    async def _post(self, path: str, body: Any) -> Any:
        answer = await self.http.post(P + path, json=body)
        assert answer.status_code < 300 or answer.status_code in AWAY, answer.text
        return answer.json() if answer.status_code < 300 else None

    async def kill(self, flag: str) -> Any:
        """Kill, again and again until it is acknowledged, as a person does."""

        async def killed() -> Any:
            with suppress(httpx.HTTPError):
                answer = await self.http.post(f"{P}/flags/{flag}/kill", json={"reason": "bad", "compensate": "none"})
                assert answer.status_code == 202 or answer.status_code in AWAY, answer.text
                return answer.json() if answer.status_code == 202 else None

        return await until(killed)


@pytest.fixture
async def shop(pair: Pair, redis_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    token = await admin_token(pair.url)
    (tmp_path / "shop.py").write_text(SHOP)
    async with AsyncExitStack() as stack:
        variables = {"RESCIND_DATABASE_URL": pair.url, "RESCIND_REDIS_URL": redis_url, "RESCIND_LOG_LEVEL": "warning"}
        server = Process(["serve", "--http-port", "0"], variables=variables)
        stack.callback(server.end, signal.SIGKILL)
        url = await asyncio.to_thread(server.wait_ready)
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60)
        )
        for key in (FLAG, BAD, WORSE):
            flag = {"key": key, "definition": definition()}
            (await http.put(f"{P}/flags/{key}", json={"flag": flag, "reason": "new"})).raise_for_status()
        options = {"RESCIND_URL": url, "RESCIND_TOKEN": token, "RESCIND_ENVIRONMENT": "production"}
        worker = Process(
            ["work", "shop:order"], cwd=tmp_path, variables={**options, "RESCIND_STATE_DIR": str(tmp_path / "worker")}
        )
        stack.callback(worker.end, signal.SIGKILL)
        client = await stack.enter_async_context(
            rescind.AsyncClient(
                url=url, token=token, environment="production", service="checkout", state_dir=tmp_path / "client"
            )
        )
        yield Shop(http, client, [server, worker])


async def test_nothing_that_was_acknowledged_is_lost_with_the_primary(shop: Shop, pair: Pair) -> None:  # P2, P8, P9, P10, P18
    ended = asyncio.Event()
    callers = [asyncio.create_task(shop.act(number, ended)) for number in range(CALLERS)]
    await until(lambda: len(shop.started) >= BEFORE)
    killed = await shop.kill(BAD)
    assert killed["standby"]["confirmed"] is True
    assert killed["standby"]["names"] == ["standby"]
    worse = asyncio.create_task(shop.kill(WORSE))
    await fail_over(pair)
    promoted = await instant(pair)
    known = len(shop.started)
    await until(lambda: len(shop.started) >= known + AFTER)
    ended.set()
    await asyncio.gather(*callers, worse)
    await hold(shop, pair, {BAD, WORSE})
    await until(lambda: leases_go_on(pair, promoted))
    assert shop.refused == []
    assert [process.code for process in shop.processes] == [None, None], [process.output for process in shop.processes]


async def test_a_kill_that_only_the_primary_had_is_laid_again_by_whoever_saw_it(shop: Shop, pair: Pair) -> None:  # P2, hazard 5
    pair.standby.stop()
    killed = await shop.kill(BAD)
    assert (killed["standby"]["confirmed"], killed["standby"]["names"]) == (False, [])
    report = (await shop.http.get(f"/v1/rollbacks/{killed['rollback_id']}/report")).json()
    assert report["rollback"]["standby"]["confirmed"] is False
    await fail_over(pair)
    pg = await connect(pair.url, application_name="tests")
    try:
        assert await pg.fetchval("SELECT count(*) FROM flagd.kills") == 0, "the standby has never had it"
        await until(lambda: pg.fetchval("SELECT generation = 2 FROM flagd.environments WHERE name = 'production'"))
    finally:
        await pg.close()
    assert (await shop.http.get(f"{P}/flags/{BAD}")).json()["killed"] is True
    await until(lambda: is_closed(shop))


async def is_closed(shop: Shop) -> bool:
    """Whether admission says that the environment is in recovery; until a server knows, every fence is closed (0017)."""
    effect = {"key": "late", "kind": "mail", "flag": FLAG, "payload": {}, "variant": "on"}
    answer = await shop.http.post(f"{P}/effects:admit", json={"effects": [effect]})
    if answer.status_code == 200:
        assert [one["outcome"] for one in answer.json()["results"]] == ["killed"]
        return False
    return (answer.status_code, answer.json()["code"]) == (503, "in_recovery")


async def hold(shop: Shop, pair: Pair, killed: set[str]) -> None:
    """Everything that was acknowledged stands at the promoted one, once, and goes on to its end."""
    pg = await connect(pair.standby.url, application_name="tests")
    try:
        effects = {row["key"]: row for row in await pg.fetch(
            "SELECT key, id::text, status FROM sagas.effects WHERE kind = 'mail'"
        )}  # fmt: skip
        assert {name: effects[name]["id"] for name in shop.effects} == shop.effects
        assert {effects[name]["status"] for name in shop.reported} == {"succeeded"}
        done = "SELECT count(*) FROM sagas.instances WHERE id = ANY($1) AND state = 'done'"
        await until(lambda: finished(pg, done, shop.started))
        environment = await pg.fetchrow("SELECT * FROM flagd.environments WHERE name = 'production'")
        assert (environment["generation"], environment["recovering_since"]) == (1, None)
        for key in killed:
            assert (await shop.http.get(f"{P}/flags/{key}")).json()["killed"] is True
    finally:
        await pg.close()


async def instant(pair: Pair) -> datetime:
    """PostgreSQL's time now."""
    return await ask(pair, "SELECT clock_timestamp()")


async def leases_go_on(pair: Pair, since: datetime) -> bool:
    """Whether every range of the coordinators is held, and was renewed at the promoted one."""
    return await ask(pair, "SELECT count(*) > 0 AND bool_and(renewed_at > $1 AND holder <> '') FROM sagas.leases", since)


async def ask(pair: Pair, query: str, *arguments: Any) -> Any:
    pg = await connect(pair.url, application_name="tests")
    try:
        return await pg.fetchval(query, *arguments)
    finally:
        await pg.close()


async def finished(pg: Any, query: str, names: set[str]) -> bool:
    return await pg.fetchval(query, list(names)) == len(names)
