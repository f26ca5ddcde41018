"""The barrier of a participant's own database, over each driver, on real PostgreSQL (P10, P13, P16)."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

import asyncpg
import psycopg
import pytest
import rescind
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st
from rescind import barrier
from rescind.barrier import Entry
from sqlalchemy.ext.asyncio import create_async_engine

from runtime.embedded import EmbeddedPostgres
from tests.conftest import run_on, with_database

STOCK = "CREATE TABLE stock (effect uuid PRIMARY KEY, reserved integer NOT NULL)"
MADE = {"act": 1, "undo": -1}
Verb = Literal["act", "undo"]


class RollbackError(Exception):
    """The participant's transaction failed after the barrier."""


def new_effect() -> rescind.Effect:
    return rescind.Effect(id=str(uuid.uuid4()), kind="stock.reserve", key="reserve:1", flag="checkout", payload={})


def change(effect: rescind.Effect, verb: Verb) -> str:
    return (
        f"INSERT INTO stock VALUES ('{effect.id}', {MADE[verb]}) ON CONFLICT (effect)"
        f" DO UPDATE SET reserved = stock.reserved + {MADE[verb]}"
    )


# --- one participant per driver ---------------------------------------------------------------------------------------


@asynccontextmanager
async def of_asyncpg(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def of_psycopg(url: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        yield connection


@contextmanager
def of_psycopg_sync(url: str) -> Any:
    with psycopg.connect(url, row_factory=psycopg.rows.dict_row) as connection:
        yield connection


@contextmanager
def of_sqlalchemy_sync(url: str) -> Any:
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def of_sqlalchemy(dialect: str) -> Callable[[str], Any]:
    @asynccontextmanager
    async def opened(url: str) -> AsyncIterator[Any]:
        engine = create_async_engine(url.replace("postgresql:", f"postgresql+{dialect}:"))
        try:
            async with engine.begin() as connection:
                yield connection
        finally:
            await engine.dispose()

    return opened


PARTICIPANTS: dict[str, Callable[[str], Any]] = {
    "asyncpg": of_asyncpg,
    "psycopg": of_psycopg,
    "psycopg-sync": of_psycopg_sync,
    "sqlalchemy-asyncpg": of_sqlalchemy("asyncpg"),
    "sqlalchemy-psycopg": of_sqlalchemy("psycopg"),
    "sqlalchemy-sync": of_sqlalchemy_sync,
}


async def take_part(name: str, url: str, effect: rescind.Effect, verb: Verb, *, fails: bool = False) -> Entry:
    """One call of a participant: the barrier and the change in one transaction."""
    opened = PARTICIPANTS[name](url)
    if hasattr(opened, "__enter__") and not hasattr(opened, "__aenter__"):
        return await asyncio.to_thread(take_part_sync, opened, effect, verb, fails)
    async with opened as connection:
        entry = await barrier.enter(connection, effect, verb=verb)
        if entry:
            await connection.execute(written(connection, effect, verb))
        if fails:
            raise RollbackError
        return entry


def take_part_sync(opened: Any, effect: rescind.Effect, verb: Verb, fails: bool) -> Entry:
    with opened as connection:
        entry = barrier.enter_sync(connection, effect, verb=verb)
        if entry:
            connection.execute(written(connection, effect, verb))
        if fails:
            raise RollbackError
        return entry


def written(connection: Any, effect: rescind.Effect, verb: Verb) -> Any:
    text = change(effect, verb)
    return sqlalchemy.text(text) if hasattr(connection, "exec_driver_sql") else text


@pytest.fixture(scope="session")
def shop_url(postgres_server: EmbeddedPostgres) -> str:
    """A participant's database: its own table and the barrier's."""

    async def build() -> str:
        await run_on(postgres_server.url, "CREATE DATABASE shop_barrier")
        url = with_database(postgres_server.url, "shop_barrier")
        await run_on(url, STOCK, barrier.TABLE)
        return url

    return asyncio.run(build())


async def reserved(url: str, effect: rescind.Effect) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT coalesce(sum(reserved), 0) FROM stock WHERE effect = $1", effect.id))
    finally:
        await connection.close()


@pytest.mark.parametrize("name", PARTICIPANTS)
async def test_each_driver_keeps_duplicates_empty_undoings_and_late_acts_out(name: str, shop_url: str) -> None:
    effect, other = new_effect(), new_effect()
    said = [await take_part(name, shop_url, effect, verb) for verb in ("act", "act", "undo", "undo", "act")]
    assert said == [Entry.DO, Entry.DONE, Entry.DO, Entry.DONE, Entry.NEVER]
    said = [await take_part(name, shop_url, other, verb) for verb in ("undo", "act", "undo", "act")]
    assert said == [Entry.NEVER, Entry.NEVER, Entry.DONE, Entry.NEVER]
    assert (await reserved(shop_url, effect), await reserved(shop_url, other)) == (0, 0)


@pytest.mark.parametrize("name", PARTICIPANTS)
async def test_what_is_rolled_back_was_not_entered(name: str, shop_url: str) -> None:
    effect = new_effect()
    with pytest.raises(RollbackError):
        await take_part(name, shop_url, effect, "act", fails=True)
    assert await take_part(name, shop_url, effect, "act") is Entry.DO
    with pytest.raises(RollbackError):
        await take_part(name, shop_url, effect, "undo", fails=True)
    assert await take_part(name, shop_url, effect, "undo") is Entry.DO
    assert await reserved(shop_url, effect) == 0


@pytest.mark.parametrize("act_commits", [True, False])
async def test_an_undoing_waits_for_the_act_that_is_under_way(act_commits: bool, shop_url: str) -> None:
    effect = new_effect()
    connection = await asyncpg.connect(shop_url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        assert await barrier.enter(connection, effect, verb="act")
        await connection.execute(change(effect, "act"))
        undoing = asyncio.ensure_future(take_part("psycopg", shop_url, effect, "undo"))
        while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"):
            assert not undoing.done()
        await (transaction.commit() if act_commits else transaction.rollback())
        assert await undoing is (Entry.DO if act_commits else Entry.NEVER)
    finally:
        await connection.close()
    assert await reserved(shop_url, effect) == 0
    assert await take_part("asyncpg", shop_url, effect, "act") is Entry.NEVER


Call = tuple[Verb, bool]
CALLS = st.lists(st.tuples(st.sampled_from(["act", "undo"]), st.booleans()), min_size=1, max_size=6)
"""What arrives: the verb, and whether the participant's transaction fails."""


@settings(max_examples=60)
@given(calls=CALLS)
def test_in_any_order_the_change_holds_exactly_if_the_act_came_first_and_no_undoing(calls: list[Call], shop_url: str) -> None:
    asyncio.run(check(calls, shop_url, together=False))


@settings(max_examples=60)
@given(calls=CALLS)
def test_at_once_the_change_holds_exactly_if_an_act_committed_and_no_undoing(calls: list[Call], shop_url: str) -> None:
    asyncio.run(check(calls, shop_url, together=True))


async def check(calls: list[Call], url: str, *, together: bool) -> None:
    effect = new_effect()
    if together:
        ended = await asyncio.gather(*(arrive(call, url, effect) for call in calls))
    else:
        ended = [await arrive(call, url, effect) for call in calls]
    committed = [verb for (verb, fails) in calls if not fails]
    assert await reserved(url, effect) == int("act" in committed and "undo" not in committed)
    made = [(verb, entry) for (verb, fails), entry in zip(calls, ended, strict=True) if not fails]
    assert made.count(("act", Entry.DO)) <= 1
    assert made.count(("undo", Entry.DO)) == (made.count(("act", Entry.DO)) if "undo" in committed else 0)


async def arrive(call: Call, url: str, effect: rescind.Effect) -> Entry | None:
    verb, fails = call
    try:
        return await take_part("asyncpg", url, effect, verb, fails=fails)
    except RollbackError:
        return None


# --- what cannot work is said -----------------------------------------------------------------------------------------


async def test_outside_of_a_transaction_it_refuses(shop_url: str) -> None:
    effect = new_effect()
    connection = await asyncpg.connect(shop_url)
    try:
        with pytest.raises(rescind.ConfigurationError, match="inside the transaction"):
            await barrier.enter(connection, effect, verb="act")
    finally:
        await connection.close()
    with psycopg.connect(shop_url, autocommit=True) as synchronous:
        with pytest.raises(rescind.ConfigurationError, match="inside the transaction"):
            barrier.enter_sync(synchronous, effect, verb="act")
        with synchronous.transaction():
            assert barrier.enter_sync(synchronous, effect, verb="act") is Entry.DO
    engine = sqlalchemy.create_engine(shop_url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as of_engine, pytest.raises(rescind.ConfigurationError, match="inside the transaction"):
        barrier.enter_sync(of_engine, effect, verb="act")
    engine.dispose()


async def test_the_wrong_kind_of_connection_is_named(shop_url: str) -> None:
    effect = new_effect()
    with psycopg.connect(shop_url) as synchronous, pytest.raises(rescind.ConfigurationError, match="_sync"):
        await barrier.enter(synchronous, effect, verb="act")
    async with of_asyncpg(shop_url) as connection:
        with pytest.raises(rescind.ConfigurationError, match="awaited"):
            barrier.enter_sync(connection, effect, verb="act")
    with pytest.raises(rescind.ConfigurationError, match="no connection"):
        barrier.enter_sync(object(), effect, verb="act")


async def test_the_table_is_laid_down_once(empty_database_url: str) -> None:
    async with of_asyncpg(empty_database_url) as connection:
        await barrier.create_table(connection)
        await barrier.create_table(connection)
        assert await barrier.enter(connection, new_effect(), verb="act") is Entry.DO
    with of_psycopg_sync(empty_database_url) as connection:
        barrier.create_table_sync(connection)
    with of_sqlalchemy_sync(empty_database_url) as connection:
        barrier.create_table_sync(connection)
        assert barrier.enter_sync(connection, new_effect(), verb="undo") is Entry.NEVER
    assert inspect.cleandoc(barrier.TABLE).startswith("--")
