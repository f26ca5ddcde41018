"""One gRPC server on one port, on the loop that runs: its limits, its keepalive, its certificates, its bounded stop."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import grpc
from grpc import aio
from msgspec import Struct

from flagd.grpc.gate import Gate
from flagd.grpc.services import Services
from flagd.grpc.streams import STREAMS_MAX, Streams
from flagd.replica import Replicas
from flagd.rights import Rights
from runtime.clock import Clock
from runtime.errors import SettingsError
from runtime.verifier import Verifier

RPCS_MAX = STREAMS_MAX + 1_000
"""Calls at once, streams among them: evaluations find room however many streams are open."""
REQUEST_BYTES_MAX = 1024 * 1024
PING_SECONDS = 30
"""How often a silent client is asked whether it is there; one that does not answer within `PING_ANSWER_SECONDS` is let go."""
PING_ANSWER_SECONDS = 10
PING_MIN_SECONDS = 5
"""Released providers ping every ten seconds at most; one that asks more often than this is cut off."""
STOP_SECONDS = 2.0

OPTIONS = (
    ("grpc.so_reuseport", 0),  # a port in use is an error, never shared
    ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
    ("grpc.keepalive_time_ms", PING_SECONDS * 1000),
    ("grpc.keepalive_timeout_ms", PING_ANSWER_SECONDS * 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_MIN_SECONDS * 1000),
)


class Tls(Struct, frozen=True, kw_only=True):
    """The files of a listener's certificate; with `client_ca` clients show one as well (mutual TLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Raises `SettingsError` for a file that cannot be read."""
        try:
            pair = (self.key.read_bytes(), self.certificate.read_bytes())
            authority = None if self.client_ca is None else self.client_ca.read_bytes()
        except OSError as error:
            raise SettingsError([f"{error.filename}: {error.strerror}"]) from None
        return grpc.ssl_server_credentials([pair], authority, authority is not None)


class Place(Struct, frozen=True, kw_only=True):
    """Where a listener is and what it serves. `tls`: none is plain text."""

    host: str
    environment: str
    tls: Tls | None = None

    @property
    def is_open(self) -> bool:
        """Whether whoever reaches it may ask: on loopback, or with a certificate of ours."""
        return is_loopback(self.host) or (self.tls is not None and self.tls.client_ca is not None)


class Listener:
    """Serves from `start` to `stop`, on the address that `reserved` is bound to."""

    def __init__(
        self, reserved: socket.socket, place: Place, services: Services, replicas: Replicas, verifier: Verifier
    ) -> None:
        self._reserved = reserved
        self._place = place
        self._streams = Streams(Rights(verifier.verify, Clock()))
        self._gate = Gate(replicas, verifier, place.environment, is_open=place.is_open)
        self._services = services
        self._server: aio.Server | None = None

    @property
    def stream_count(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    async def start(self) -> None:
        """Accept calls. Raises `SettingsError` for an address that was taken meanwhile, or certificates that are none."""
        host, port = self._reserved.getsockname()[:2]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        server = aio.server(
            handlers=self._services(self._gate, self._streams), options=OPTIONS, maximum_concurrent_rpcs=RPCS_MAX
        )
        try:
            if self._place.tls is None:
                server.add_insecure_port(address)
            else:
                server.add_secure_port(address, self._place.tls.credentials())
        except RuntimeError:
            raise SettingsError([f"cannot listen on {address}: it is taken, or its certificate and key do not fit"]) from None
        finally:
            self._reserved.close()
        await server.start()
        self._server = server

    def end_streams(self) -> None:
        """Let go of clients that would hold a stop up."""
        self._streams.end()

    async def stop(self) -> None:
        """No new calls; streams end, the others finish, all of it within `STOP_SECONDS`."""
        self._streams.end()
        self._reserved.close()
        if self._server is not None:
            await self._server.stop(STOP_SECONDS)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host's address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
