"""flagd's two gRPC listeners beside HTTP: their addresses are taken before anything is started, as HTTP's is."""

from __future__ import annotations

import asyncio
import logging
import socket

from flagd.grpc import Listener, Place, Tls, evaluation_services, sync_services
from flagd.grpc.services import Services
from flagd.replica import Replicas
from runtime.errors import Unavailable
from runtime.problem import Problem
from runtime.settings import Settings
from runtime.verifier import Verifier
from server.running import bind

log = logging.getLogger("rescind.listeners")

Reservation = tuple[str, socket.socket, Services]
"""What is served there, the bound socket that keeps the port, and its services."""


class Listeners:
    """None at all where the settings name no environment for them, or this process does not serve flags."""

    def __init__(self, settings: Settings) -> None:
        """Take the addresses. Raises `SettingsError` where one is in use."""
        self._place: Place | None = None
        self._reserved: list[Reservation] = []
        self._serving: list[Listener] = []
        self.addresses: dict[str, str] = {}
        """Where they listen, by what they serve."""
        if settings.grpc_environment is not None and "flags" in settings.roles:
            self._place = Place(host=settings.grpc_host, environment=settings.grpc_environment, tls=_tls(settings))
            self._reserve(settings)

    def _reserve(self, settings: Settings) -> None:
        wanted: list[tuple[str, int, str, Services]] = [
            ("flagd.sync.v1", settings.sync_port, "RESCIND_SYNC_PORT", sync_services),
            ("flagd.evaluation.v1, v2", settings.evaluation_port, "RESCIND_EVALUATION_PORT", evaluation_services),
        ]
        try:
            for name, port, setting, services in wanted:
                reserved = bind(settings.grpc_host, port, setting)
                self._reserved.append((name, reserved, services))
                self.addresses[name] = f"{settings.grpc_host}:{reserved.getsockname()[1]}"
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the addresses back that were not used."""
        for _, reserved, _ in self._reserved:
            reserved.close()

    async def start(self, replicas: Replicas, verifier: Verifier) -> None:
        """Accept calls. Raises `SettingsError`. Flags that cannot be had yet are said, and asked for with every call."""
        if self._place is not None:
            try:
                await replicas.get(self._place.environment)
            except (Problem, Unavailable) as error:
                log.warning("flagd's listeners have nothing to serve yet: %s", error)
        for _, reserved, services in self._reserved:
            assert self._place is not None
            listener = Listener(reserved, self._place, services, replicas, verifier)
            await listener.start()
            self._serving.append(listener)

    def end_streams(self) -> None:
        """Let go of clients that would hold a stop up."""
        for listener in self._serving:
            listener.end_streams()

    async def stop(self) -> None:
        """Stop both at once, in bounded time."""
        self.release()
        await asyncio.gather(*(listener.stop() for listener in self._serving))


def _tls(settings: Settings) -> Tls | None:
    if settings.grpc_tls_certificate is None or settings.grpc_tls_key is None:
        return None
    return Tls(certificate=settings.grpc_tls_certificate, key=settings.grpc_tls_key, client_ca=settings.grpc_tls_client_ca)
