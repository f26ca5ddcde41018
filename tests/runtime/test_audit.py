"""The audit log: in the transaction of the act, and never changed (P20)."""

import asyncpg
import pytest

from runtime import audit


async def test_an_act_and_its_entry_stand_or_fall_together(pg):
    # P20
    async def act_and_fail() -> None:
        async with pg.transaction() as connection:
            await audit.append(connection, actor="a", action="flag.put", environment="production", object="checkout")
            raise KeyError

    with pytest.raises(KeyError):
        await act_and_fail()
    async with pg.transaction() as connection:
        first = await audit.append(connection, actor="a", action="flag.put", environment="production", object="checkout")
        second = await audit.append(
            connection,
            actor="b",
            action="flag.kill",
            environment="production",
            object="checkout",
            reason="bad",
            detail={"scope": {"country": "DE"}},
        )
    async with pg.connection() as connection:
        entries = await audit.newest(connection, environment="production", object="checkout")
        assert [entry.id for entry in entries] == [second, first]
        assert (entries[0].actor, entries[0].reason, entries[0].detail) == ("b", "bad", {"scope": {"country": "DE"}})
        assert [entry.id for entry in await audit.newest(connection, before=second)] == [first]
        assert await audit.newest(connection, environment="staging") == []


@pytest.mark.parametrize(
    "statement", ["UPDATE runtime.audit SET actor = 'x'", "DELETE FROM runtime.audit", "TRUNCATE runtime.audit"]
)
async def test_the_log_is_append_only(pg, statement):
    # P20
    async with pg.transaction() as connection:
        await audit.append(connection, actor="a", action="flag.put", environment=None, object="checkout")
    async with pg.connection() as connection:
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await connection.execute(statement)
