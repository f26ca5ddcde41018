"""Tokens: hashed at rest, checked everywhere, revoked within a second, good while the database is away."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from runtime import tokens, verifier
from runtime.clock import Clock
from runtime.embedded import EmbeddedPostgres
from runtime.errors import Unavailable
from runtime.migrations import migrate
from runtime.postgres import Postgres
from runtime.problem import Problem
from runtime.tokens import Principal, Verifier, bearer
from tests.conftest import ROOMS
from tests.waiting import until

PRINCIPAL = Principal(id="1", name="n", environment="production", scopes=frozenset({"read", "kill:checkout", "work"}))


class Hand(Clock):
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at


async def make(pg: Postgres, *scopes: str, environment: str | None = "production", **more) -> tuple[str, str]:
    async with pg.transaction() as connection:
        return await tokens.create(connection, "checkout", environment, scopes or ("read",), "tests", **more)


async def revoke(pg: Postgres, identity: str) -> None:
    async with pg.transaction() as connection:
        assert await tokens.revoke(connection, identity) is not None


async def queries_of(pg: Postgres) -> int:
    async with pg.connection() as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        return await connection.fetchval(
            "SELECT coalesce(seq_scan, 0) + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = 'tokens'"
        )


@pytest.fixture
async def check(pg: Postgres) -> Verifier:
    return Verifier(pg)


async def test_a_token_says_who_is_asking(pg, check):
    text, identity = await make(pg, "read", "kill:checkout")
    assert text.startswith(f"rsc_{identity}_")
    for header in (text, f"Bearer {text}", f"bearer  {text} "):
        principal = await check.verify(header)
        assert principal == Principal(
            id=identity, name="checkout", environment="production", scopes=frozenset({"read", "kill:checkout"})
        )
    assert check.cached(text) == principal


async def test_only_a_digest_is_at_rest(pg):
    text, _ = await make(pg)
    async with pg.connection() as connection:
        row = await connection.fetchval("SELECT t::text FROM runtime.tokens AS t")
    assert text.rpartition("_")[2] not in row


@pytest.mark.parametrize("header", [None, "", "Bearer ", "Basic x", "rsc_1_2", "Bearer rsc_" + "0" * 16 + "_" + "0" * 64])
async def test_what_is_no_token_of_ours_is_unauthenticated(check, header):
    with pytest.raises(Problem) as caught:
        await check.verify(header)
    assert (caught.value.status, caught.value.code) == (401, "unauthenticated")
    assert caught.value.headers()["www-authenticate"] == "Bearer"


async def test_a_right_id_with_a_wrong_secret_is_unauthenticated(pg, check):
    text, _ = await make(pg)
    await check.verify(text)
    forged = text[:-1] + ("0" if text[-1] != "0" else "1")
    assert check.cached(forged) is None
    with pytest.raises(Problem):
        await check.verify(forged)
    assert await check.verify(text)


async def test_a_revocation_holds_within_a_second_under_steady_use(pg):
    hand = Hand()
    check = Verifier(pg, hand)
    text, identity = await make(pg)
    await check.verify(text)
    await revoke(pg, identity)
    revoked = hand.at

    async def refused() -> bool:
        hand.at += 0.01
        if check.cached(text) is not None:
            return False
        try:
            await check.verify(text)
        except Problem:
            return True
        return False

    await until(refused)
    assert hand.at - revoked < 1.0


async def test_a_revocation_holds_for_a_token_used_once_a_second(pg):
    hand = Hand()
    check = Verifier(pg, hand)
    text, identity = await make(pg)
    await check.verify(text)
    await revoke(pg, identity)
    hand.at += 0.95
    assert check.cached(text) is None

    async def refused() -> bool:
        try:
            await check.verify(text)
        except Problem:
            return True
        return False  # the database took its time, and a token that was good a second ago is believed meanwhile (P5)

    await until(refused)


async def test_a_token_runs_out(pg):
    hand = Hand()
    check = Verifier(pg, hand)
    text, _ = await make(pg, expires_at=datetime.now(UTC) + timedelta(seconds=60))
    await check.verify(text)
    assert check.cached(text) is not None
    hand.at += 61
    assert check.cached(text) is None
    expired, _ = await make(pg, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(Problem):
        await check.verify(expired)


async def test_steady_use_never_waits_for_the_database(pg):
    hand = Hand()
    check = Verifier(pg, hand)
    text, _ = await make(pg)
    await check.verify(text)
    for _ in range(5):
        hand.at += verifier.FRESH_SECONDS * 0.9
        assert check.cached(text) is not None  # and asks again behind it
        await until(lambda: not check._refreshes)
    hand.at += verifier.FRESH_SECONDS * 1.1
    assert check.cached(text) is None


async def test_many_callers_cost_one_query_at_a_time(pg, check):
    texts = [(await make(pg))[0] for _ in range(20)]
    before = await queries_of(pg)
    principals = await asyncio.gather(*(check.verify(text) for text in texts * 50))
    assert len(principals) == 1000
    # one for the first, one for all that came while it ran
    assert len({principal.id for principal in principals}) == 20
    assert await queries_of(pg) - before <= 20 * 2


async def test_unknown_tokens_are_remembered_briefly_and_in_bounded_number(pg):
    hand = Hand()
    check = Verifier(pg, hand)
    texts = [f"rsc_{number:016x}_{'0' * 64}" for number in range(verifier.UNKNOWN_MAX + 200)]
    refusals = await asyncio.gather(*(check.verify(text) for text in texts), return_exceptions=True)
    assert all(isinstance(refusal, Problem) for refusal in refusals)
    assert len(check._unknown) == verifier.UNKNOWN_MAX
    text, identity = await make(pg)
    async with pg.connection() as connection:
        await connection.execute("UPDATE runtime.tokens SET id = $1 WHERE id = $2", f"{1:016x}", identity)
    text = f"rsc_{1:016x}_{text.rpartition('_')[2]}"
    assert await check.verify(text)


async def test_a_verified_token_stays_good_while_postgresql_is_away(tmp_path):
    # P5
    with EmbeddedPostgres(tmp_path / "pg", fsync=False) as server:
        await migrate(server.url, ROOMS)
        pg = await Postgres.open(server.url, application_name="tests")
        hand = Hand()
        check = Verifier(pg, hand)
        known, _ = await make(pg)
        expiring, _ = await make(pg, expires_at=datetime.now(UTC) + timedelta(hours=1))
        never_seen, _ = await make(pg)
        await check.verify(known)
        await check.verify(expiring)
        await asyncio.to_thread(server.stop)
        for _ in range(3):
            hand.at += 600
            assert await check.verify(known)
            assert await check.verify(expiring)
        with pytest.raises(Unavailable):
            await check.verify(never_seen)
        hand.at += 3600
        with pytest.raises(Problem):
            await check.verify(expiring)
        await asyncio.to_thread(server.start)
        assert await check.verify(never_seen)
        await pg.close()


async def test_a_database_that_hangs_costs_a_verified_token_little(pg):
    # P5
    hand = Hand()
    check = Verifier(pg, hand)
    text, identity = await make(pg)
    await check.verify(text)
    async with pg.transaction() as connection:
        await connection.execute("LOCK TABLE runtime.tokens IN ACCESS EXCLUSIVE MODE")
        hand.at += 10
        async with asyncio.timeout(60):  # the lock is held until this block ends
            assert await check.verify(text)
        assert check.cached(text) is not None  # and the next caller does not wait again
        await tokens.revoke(connection, identity)
    hand.at += 10
    with pytest.raises(Problem):
        await check.verify(text)


@pytest.mark.parametrize(
    ("scope", "environment", "allowed"),
    [
        ("read", "production", True),
        ("read", None, True),
        ("read", "staging", False),
        ("kill:checkout", "production", True),
        ("kill:search", "production", False),
        ("kill", "production", False),
        ("work:order", "production", True),
        ("admin", "production", False),
    ],
)
def test_a_principal_may_what_its_scopes_say(scope, environment, allowed):
    assert PRINCIPAL.allows(scope, environment) is allowed


def test_an_admin_may_everything_everywhere():
    admin = Principal(id="1", name="n", environment=None, scopes=frozenset({"admin"}))
    assert admin.allows("kill:checkout", "production")
    assert admin.allows("read", "staging")
    admin.require("compensate", "staging")


def test_a_refusal_names_what_is_missing():
    with pytest.raises(Problem) as caught:
        PRINCIPAL.require("kill:search", "production")
    assert caught.value.status == 403
    assert "'kill:search' in 'production'" in caught.value.detail
    assert "bound to 'production'" in caught.value.detail


async def test_a_token_that_makes_no_sense_is_refused_with_every_fault(pg):
    async with pg.connection() as connection:
        with pytest.raises(Problem) as caught:
            await tokens.create(connection, "x", "production", ["read", "rule", "kill:", "admin"], "tests")
    assert [fault.pointer for fault in caught.value.errors] == ["/scopes/1", "/scopes/2", "/environment"]


async def test_only_an_admin_token_is_for_every_environment(pg):
    async with pg.connection() as connection:
        with pytest.raises(Problem) as caught:
            await tokens.create(connection, "x", None, ["kill", "read"], "tests")
        assert (caught.value.status, [fault.pointer for fault in caught.value.errors]) == (422, ["/environment"])
        assert await tokens.listing(connection) == []
        await tokens.create(connection, "x", None, ["admin", "read"], "tests")


async def test_tokens_are_listed_without_their_secret(pg):
    _, identity = await make(pg, "read", "evaluate")
    await revoke(pg, identity)
    async with pg.connection() as connection:
        (token,) = await tokens.listing(connection)
        assert await tokens.revoke(connection, "nobody") is None
    assert (token.id, token.scopes, token.environment) == (identity, ["evaluate", "read"], "production")
    assert token.revoked_at is not None


def test_the_token_is_read_from_either_header():
    assert bearer([(b"x", b"y"), (b"authorization", b"Bearer abc")]) == "abc"
    assert bearer([(b"x-api-key", b"abc")]) == "abc"
    assert bearer([(b"x-api-key", b"abc"), (b"authorization", b"bearer def")]) == "def"
    assert bearer([(b"authorization", b"Basic abc")]) is None
