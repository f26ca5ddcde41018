"""Migrations: once, in order, idempotent, never edited (P21)."""

import asyncio
from pathlib import Path

import pytest

from runtime.errors import MigrationError, Unavailable
from runtime.migrations import migrate, pending, read
from runtime.postgres import Postgres, connect
from runtime.queries import all_queries
from tests.conftest import ROOMS, ROOT

PACKAGES = ["runtime", "flagd", "sagas", "server", "server.rollbacks"]


def room(folder: Path, **files: str) -> Path:
    """Make a room with migrations, named by their file's stem."""
    migrations = folder / "migrations"
    migrations.mkdir(parents=True, exist_ok=True)
    for stem, sql in files.items():
        (migrations / f"{stem.lstrip('_')}.sql").write_text(sql)
    return migrations


async def test_every_rooms_migrations_apply_and_a_second_time_is_a_no_op(empty_database_url):
    # P21
    assert [str(migration) for migration in await pending(empty_database_url, ROOMS)] == [str(m) for m in read(ROOMS)]
    applied = await migrate(empty_database_url, ROOMS)
    assert [(done.room, done.file) for done in applied] == [(m.room, m.file) for m in read(ROOMS)]
    assert await migrate(empty_database_url, ROOMS) == []
    assert await pending(empty_database_url, ROOMS) == []


async def test_every_file_is_idempotent(database_url):
    # P21: as if the ledger of migrations had been lost
    connection = await connect(database_url, application_name="tests")
    await connection.execute("DELETE FROM runtime.migrations")
    await connection.close()
    assert len(await migrate(database_url, ROOMS)) == len(read(ROOMS))


async def test_servers_that_start_together_take_turns(empty_database_url):
    results = await asyncio.gather(*(migrate(empty_database_url, ROOMS) for _ in range(4)))
    assert sorted(len(applied) for applied in results) == [0, 0, 0, len(read(ROOMS))]


async def test_pre_of_all_rooms_comes_before_any_post(empty_database_url, tmp_path):
    rooms = [
        room(tmp_path / "a", _0001_pre_table="CREATE TABLE IF NOT EXISTS a ()", _0002_post_drop="DROP TABLE IF EXISTS b"),
        room(tmp_path / "b", _0001_pre_table="CREATE TABLE IF NOT EXISTS b ()"),
    ]
    assert [done.room for done in await migrate(empty_database_url, rooms, "pre")] == ["a", "b"]
    assert [str(migration) for migration in await pending(empty_database_url, rooms)] == ["a/0002_post_drop.sql"]
    assert await pending(empty_database_url, rooms, "pre") == []
    assert [done.file for done in await migrate(empty_database_url, rooms, "post")] == ["0002_post_drop.sql"]


async def test_an_edited_file_is_refused_with_what_to_do(empty_database_url, tmp_path):
    rooms = [room(tmp_path / "a", _0001_pre_table="CREATE TABLE IF NOT EXISTS a ()")]
    await migrate(empty_database_url, rooms)
    room(tmp_path / "a", _0001_pre_table="CREATE TABLE IF NOT EXISTS a (x integer)")
    for act in (migrate, pending):
        with pytest.raises(MigrationError, match=r"a/0001_pre_table.sql was edited .* next number"):
            await act(empty_database_url, rooms)


async def test_a_file_that_fails_leaves_nothing_behind(empty_database_url, tmp_path):
    rooms = [room(tmp_path / "a", _0001_pre_good="CREATE TABLE a ()", _0002_pre_bad="CREATE TABLE b (); SELECT 1 / 0")]
    with pytest.raises(MigrationError, match=r"0002_pre_bad.sql was refused .* division by zero"):
        await migrate(empty_database_url, rooms)
    connection = await connect(empty_database_url, application_name="tests")
    assert await connection.fetchval("SELECT to_regclass('a') IS NOT NULL AND to_regclass('b') IS NULL")
    await connection.close()
    assert [migration.file for migration in await pending(empty_database_url, rooms)] == ["0002_pre_bad.sql"]


@pytest.mark.parametrize("stem", ["1_pre_x", "0001_during_x", "0001_pre_X"])
def test_a_name_out_of_the_pattern_is_refused(tmp_path, stem):
    with pytest.raises(MigrationError, match="NNNN_pre_words"):
        read([room(tmp_path / "a", **{stem: ""})])


def test_a_number_given_twice_is_refused(tmp_path):
    with pytest.raises(MigrationError, match="the number 0001 is taken"):
        read([room(tmp_path / "a", _0001_pre_x="", _0001_pre_y="")])


async def test_migrating_without_a_database_says_that_it_is_away(tmp_path):
    with pytest.raises(Unavailable):
        await migrate("postgresql://postgres@127.0.0.1:1/postgres", [])


def test_every_rooms_folder_is_migrated_in_tests():
    found = {path.parent for path in ROOT.glob("*/**/migrations/*.sql") if not path.relative_to(ROOT).parts[0].startswith(".")}
    assert found == set(ROOMS)


async def test_every_query_of_every_room_prepares_against_the_schema(pg: Postgres):
    refused = []
    count = 0
    async with pg.connection() as connection:
        for origin, name, text in all_queries(PACKAGES):
            count += 1
            try:
                await connection.prepare(text)
            except Exception as error:
                refused.append(f"{origin} {name}: {error}")
    assert refused == []
    assert count > 10
