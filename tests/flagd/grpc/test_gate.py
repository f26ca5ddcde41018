"""Who may ask: anonymous on loopback or with a certificate of ours, with a token otherwise; and what they are told if not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import trustme

from flagd.grpc import Place, Tls
from flagd.grpc.listener import is_loopback
from runtime import tokens
from runtime.embedded import EmbeddedPostgres
from runtime.migrations import migrate
from runtime.postgres import Postgres
from tests.conftest import ROOMS
from tests.flagd.grpc.serving import Client, end_of, served, sync, v1, v2
from tests.flagd.world import PRODUCTION, World, flag, started

ELSEWHERE = Place(host="192.0.2.1", environment=PRODUCTION)
"""As the gate sees it, this listener is reached from other machines."""


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def asked(clients: Client, token: str | None) -> list[str]:
    """What each kind of call ends in with this token."""
    metadata = None if token is None else bearer(token)
    calls = (
        clients.v1.ResolveAll(v1.ResolveAllRequest(), metadata=metadata),
        clients.v2.ResolveBoolean(v2.ResolveBooleanRequest(flag_key="f"), metadata=metadata),
        clients.v2.EventStream(v2.EventStreamRequest(), metadata=metadata),
        clients.sync.FetchAllFlags(sync.FetchAllFlagsRequest(), metadata=metadata),
        clients.sync.GetMetadata(sync.GetMetadataRequest(), metadata=metadata),
        clients.sync.SyncFlags(sync.SyncFlagsRequest(), metadata=metadata),
    )
    ends = [(await end_of(call))[0] for call in calls]
    for call in calls:
        call.cancel()
    return ends


async def test_off_loopback_every_call_needs_a_token_for_this_environment(world: World) -> None:
    await world.put(flag("f"))
    await world.service.create_environment("staging", actor="test")
    async with served(world, ELSEWHERE) as clients:
        assert await asked(clients, None) == ["UNAUTHENTICATED"] * 6
        assert await asked(clients, "rsc_" + "0" * 16 + "_" + "0" * 64) == ["UNAUTHENTICATED"] * 6
        assert await asked(clients, await world.token("effects")) == ["PERMISSION_DENIED"] * 6
        assert await asked(clients, await world.token("evaluate", environment="staging")) == ["PERMISSION_DENIED"] * 6
        for scope, environment in (("evaluate", PRODUCTION), ("read", PRODUCTION), ("admin", None)):
            assert await asked(clients, await world.token(scope, environment=environment)) == ["OK"] * 6


async def test_on_loopback_no_token_is_needed_but_one_that_is_sent_is_held_to(world: World, clients: Client) -> None:
    await world.put(flag("f"))
    assert await asked(clients, None) == ["OK"] * 6
    assert await asked(clients, await world.token("effects")) == ["PERMISSION_DENIED"] * 6


async def test_a_stream_ends_when_its_token_is_revoked(world: World) -> None:
    await world.put(flag("f"))
    token = await world.token("evaluate")
    async with served(world, ELSEWHERE) as clients:
        stream = clients.sync.SyncFlags(sync.SyncFlagsRequest(), metadata=bearer(token))
        await stream.read()
        async with world.pg.transaction() as connection:
            await tokens.revoke(connection, token.split("_")[1])
        assert (await end_of(stream))[0] == "UNAVAILABLE"
        again = clients.sync.SyncFlags(sync.SyncFlagsRequest(), metadata=bearer(token))
        assert (await end_of(again))[0] == "UNAUTHENTICATED"


async def test_a_selector_holds_for_evaluations_and_events_too(world: World, clients: Client) -> None:
    await world.put(flag("f"))
    request = v2.ResolveBooleanRequest(flag_key="f")
    mine, other = (("flagd-selector", f"flagSetId={PRODUCTION}"),), (("flagd-selector", "flagSetId=staging"),)
    assert (await clients.v2.ResolveBoolean(request, metadata=mine)).value is True
    assert await end_of(clients.v2.ResolveBoolean(request, metadata=other)) == (
        "NOT_FOUND",
        "this listener serves the flag set 'production', not 'staging'",
    )
    assert (await end_of(clients.v1.EventStream(v1.EventStreamRequest(), metadata=other)))[0] == "NOT_FOUND"


async def test_without_a_snapshot_it_is_unavailable(world: World) -> None:
    async with served(world, Place(host="127.0.0.1", environment="producton")) as clients:
        assert await asked(clients, None) == ["UNAVAILABLE"] * 6
        assert "'producton'" in (await end_of(clients.sync.FetchAllFlags(sync.FetchAllFlagsRequest())))[1]


async def test_with_postgresql_away_and_nothing_cached_it_is_unavailable(redis_url: str, tmp_path: Path) -> None:  # P5
    with EmbeddedPostgres(tmp_path / "postgres", fsync=False) as server:
        await migrate(server.url, ROOMS)
        pg = await Postgres.open(server.url, application_name="tests")
        async with started(pg, redis_url) as world:
            await asyncio.to_thread(server.stop)
            async with served(world) as clients:
                assert await asked(clients, None) == ["UNAVAILABLE"] * 6
        await pg.close()


def test_loopback_is_what_this_machine_alone_reaches() -> None:
    hosts = ("127.0.0.1", "127.8.8.8", "::1", "localhost", "0.0.0.0", "::", "10.0.0.1", "example")
    assert [host for host in hosts if is_loopback(host)] == ["127.0.0.1", "127.8.8.8", "::1", "localhost"]


class Certificates:
    """A server's certificate of one authority, a client's of another."""

    def __init__(self, folder: Path) -> None:
        self.servers, self.clients = trustme.CA(), trustme.CA()
        issued = self.servers.issue_cert("127.0.0.1")
        self.client = self.clients.issue_cert("client.example")
        issued.private_key_pem.write_to_path(folder / "key.pem")
        issued.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
        self.clients.cert_pem.write_to_path(folder / "clients.pem")
        self.tls = Tls(certificate=folder / "certificate.pem", key=folder / "key.pem")
        self.mutual = Tls(certificate=folder / "certificate.pem", key=folder / "key.pem", client_ca=folder / "clients.pem")

    def credentials(self, *, client: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
        pair = {} if client is None else {
            "private_key": client.private_key_pem.bytes(), "certificate_chain": client.cert_chain_pems[0].bytes()
        }  # fmt: skip
        return grpc.ssl_channel_credentials(self.servers.cert_pem.bytes(), **pair)


async def test_mutual_tls_takes_the_place_of_a_token(world: World, tmp_path: Path) -> None:
    await world.put(flag("f"))
    certificates = Certificates(tmp_path)
    place = Place(host="192.0.2.1", environment=PRODUCTION, tls=certificates.mutual)
    async with served(world, place, credentials=certificates.credentials(client=certificates.client)) as clients:
        assert await asked(clients, None) == ["OK"] * 6
    stranger = trustme.CA().issue_cert("client.example")
    for client in (None, stranger):
        async with served(world, place, credentials=certificates.credentials(client=client)) as clients:
            assert await asked(clients, None) == ["UNAVAILABLE"] * 6


async def test_tls_alone_still_needs_a_token(world: World, tmp_path: Path) -> None:
    await world.put(flag("f"))
    certificates = Certificates(tmp_path)
    place = Place(host="192.0.2.1", environment=PRODUCTION, tls=certificates.tls)
    async with served(world, place, credentials=certificates.credentials()) as clients:
        assert await asked(clients, None) == ["UNAUTHENTICATED"] * 6
        assert await asked(clients, await world.token("evaluate")) == ["OK"] * 6
