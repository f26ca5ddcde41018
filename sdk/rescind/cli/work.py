"""`rescind work MODULE:SAGA ...`: a worker process for a team's saga, in any number."""

from __future__ import annotations

import asyncio
import importlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.markup import escape

from rescind import AsyncClient
from rescind.cli.session import Session, common, pass_session
from rescind.hands import LEASE_SECONDS
from rescind.saga import Saga


@click.command()
@click.argument("targets", metavar="MODULE:SAGA ...", nargs=-1, required=True)
@click.option("--concurrency", type=click.IntRange(1, 1024), default=16, show_default=True)
@click.option(
    "--lease-seconds",
    type=click.FloatRange(1, 3600),
    default=LEASE_SECONDS,
    show_default=True,
    help="When this process dies, others take its work over after these.",
)
@common
@pass_session
def work(session: Session, targets: tuple[str, ...], concurrency: int, lease_seconds: float) -> None:
    """Carry out the steps and compensations of the saga that MODULE:SAGA names, until stopped; several for its versions.

    \b
    For example, with `order = rescind.Saga("order", ...)` in shop/order.py of this folder:
      rescind work shop.order:order --concurrency 8
    The token needs the scopes work:order, evaluate, and define:order (which registers the definition).
    """
    sagas = [load(target) for target in targets]
    for saga in sagas:
        session.errors.print(
            f"working for saga [bold]{escape(saga.name)}[/] {escape(saga.version)} in {escape(session.environment)}"
        )
    asyncio.run(serve(session, sagas, concurrency, lease_seconds))


def load(target: str) -> Saga:
    """Import the saga. Raises `UsageError` that says what is wrong with the name."""
    module_name, colon, attribute = target.partition(":")
    if not module_name or not colon or not attribute:
        raise click.UsageError(f"{target!r} is not MODULE:SAGA, for example shop.order:order")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module_name), attribute, None)
    except ModuleNotFoundError as error:
        raise click.UsageError(f"{module_name} cannot be imported: {error}") from None
    except Exception as error:  # whatever a team's module does while it is read
        raise click.UsageError(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from None
    if not isinstance(found, Saga):
        raise click.UsageError(f"{module_name} has no rescind.Saga called {attribute!r}")
    return found


async def serve(session: Session, sagas: Sequence[Saga], concurrency: int, lease_seconds: float) -> None:
    """Work until SIGTERM or SIGINT; what has begun is ended."""
    api, environment = session.api, session.environment
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    service = f"worker.{sagas[0].name}"
    async with AsyncClient(url=api.url, token=session.token, environment=environment, service=service, sagas=sagas) as client:
        working = asyncio.ensure_future(client.work(*sagas, concurrency=concurrency, lease_seconds=lease_seconds))
        waiting = asyncio.ensure_future(stopped.wait())
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not working.done():
            working.cancel()
        try:
            await working
        except asyncio.CancelledError:
            session.errors.print("stopped")


COMMANDS = (work,)
