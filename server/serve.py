"""`rescind serve`: a production server, configured by `RESCIND_*`; several replicas stand side by side."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping

import click
import uvloop

from runtime.errors import RuntimeFault, SettingsError
from runtime.settings import Settings
from server.app import build
from server.listeners import Listeners
from server.parts import Parts
from server.running import Running, bind, stop_on_signals

OnReady = Callable[[str, Mapping[str, str]], None]
"""Told the URL, and where what else listens, once connections are accepted."""


@click.command()
@click.option("--roles", metavar="ROLES", help="flags,sagas (RESCIND_ROLES): what this process serves.")
@click.option("--http-port", type=click.IntRange(0, 65535), help="RESCIND_HTTP_PORT; 0: any free port.")
def serve(roles: str | None, http_port: int | None) -> None:
    """Serve until SIGTERM or SIGINT."""
    given = dict(os.environ)
    if roles is not None:
        given["RESCIND_ROLES"] = roles
    if http_port is not None:
        given["RESCIND_HTTP_PORT"] = str(http_port)
    try:
        settings = Settings.from_environment(given)
        run(settings, say)
    except RuntimeFault as error:
        raise click.ClickException(str(error)) from None


def say(url: str, listeners: Mapping[str, str]) -> None:
    """Say where it listens, and that it is ready: the last line is for programs."""
    for name, address in listeners.items():
        click.echo(f"{name}: {address}")
    click.echo(f"rescind serve is ready: {url}")


def run(settings: Settings, on_ready: OnReady) -> None:
    """Serve on an event loop of its own until a signal. Raises `RuntimeFault` for what stands in the way."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_until_stopped(settings, on_ready))


async def serve_until_stopped(settings: Settings, on_ready: OnReady) -> None:
    """Take the addresses, open the parts, serve, and close everything in bounded time."""
    with contextlib.ExitStack() as taken:
        listening = taken.enter_context(bind(settings.http_host, settings.http_port))
        url = settings.public_url or f"http://{settings.http_host}:{listening.getsockname()[1]}"
        listeners = Listeners(settings)
        taken.callback(listeners.release)
        parts = await open_parts(settings)
        try:
            await listeners.start(parts.replicas, parts.verifier)

            def end_streams() -> None:
                parts.end_streams()
                listeners.end_streams()

            server = Running(build(parts), end_streams)
            await serve_with(server, listening, lambda: on_ready(url, listeners.addresses))
        finally:
            await listeners.stop()
            await parts.close()


async def open_parts(settings: Settings) -> Parts:
    """A signal while PostgreSQL is waited for ends the wait."""
    opening = asyncio.ensure_future(Parts.open(settings))

    def cancel() -> None:
        opening.cancel()

    with stop_on_signals(cancel):
        try:
            return await opening
        except asyncio.CancelledError:
            raise SettingsError(["stopped before it was ready"]) from None


async def serve_with(server: Running, listening: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until a signal; `on_ready` is called when connections are accepted."""

    def stop() -> None:
        server.should_exit = True

    with stop_on_signals(stop):
        serving = asyncio.ensure_future(server.serve(sockets=[listening]))
        waiting = asyncio.ensure_future(server.ready.wait())
        await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if server.started:
            on_ready()
        await serving
