"""`rescind dev`: the whole system on this machine, on real servers from wheels. Data survives a restart.

PostgreSQL and Valkey are children that die with this process, however it ends. The admin token is made once per folder.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from flagd import store
from runtime import tokens
from runtime.embedded import EmbeddedPostgres, EmbeddedValkey, ServerError
from runtime.errors import RuntimeFault
from runtime.migrations import migrate
from runtime.postgres import Connection, Postgres
from runtime.principal import digest
from runtime.queries import Queries
from runtime.settings import Settings
from runtime.verifier import TOKEN
from server.migrations import ROOMS
from server.serve import run

QUERIES = Queries.load("server", "dev")
ENVIRONMENTS = ("development", "production")
GRPC_ENVIRONMENT = "production"
ACTOR = "rescind dev"
SETTINGS_FILE = "rescind.env"


class Ports(Struct, frozen=True, kw_only=True):
    """Where it listens, on 127.0.0.1; 0 is any free port."""

    http: int
    sync: int
    evaluation: int


@click.command()
@click.option("--data", "data", type=click.Path(path_type=Path, file_okay=False), default=Path(".rescind"), show_default=True)
@click.option("--http-port", type=click.IntRange(0, 65535), default=8016, show_default=True, help="0: any free port.")
@click.option("--sync-port", type=click.IntRange(0, 65535), default=8015, show_default=True, help="flagd.sync.v1.")
@click.option("--evaluation-port", type=click.IntRange(0, 65535), default=8013, show_default=True, help="flagd.evaluation.")
@click.option("--ephemeral", is_flag=True, help="Keep nothing: a temporary folder, removed at the end.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning", show_default=True)
def dev(data: Path, http_port: int, sync_port: int, evaluation_port: int, ephemeral: bool, log_level: str) -> None:
    """Run everything on embedded PostgreSQL and Valkey until SIGTERM or SIGINT."""
    ports = Ports(http=http_port, sync=sync_port, evaluation=evaluation_port)
    try:
        if ephemeral:
            with tempfile.TemporaryDirectory(prefix="rescind-", ignore_cleanup_errors=True) as folder:
                live(Path(folder), ports, log_level)
        else:
            live(data, ports, log_level)
    except (RuntimeFault, ServerError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException("stopped before it was ready") from None


def live(folder: Path, ports: Ports, log_level: str) -> None:
    """Start the servers, bring the database up to date, serve, and stop everything again."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with EmbeddedPostgres(folder / "postgres") as postgres, EmbeddedValkey(folder / "valkey") as valkey:
        token = asyncio.run(prepare(postgres.url, read_token(folder)))
        settings = Settings(
            database_url=postgres.url, redis_url=valkey.url, log_level=log_level, state_dir=folder / "state",
            otlp_endpoint=os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or None,
            http_port=ports.http, sync_port=ports.sync, evaluation_port=ports.evaluation, grpc_environment=GRPC_ENVIRONMENT,
        )  # fmt: skip

        def ready(url: str, listeners: Mapping[str, str]) -> None:
            write_settings(folder, url, token, postgres.url)
            show(folder, url, listeners, settings)

        run(settings, ready)


async def prepare(database_url: str, known_token: str | None) -> str:
    """Migrate, make the environments, and return an admin token: the known one while it is good."""
    await migrate(database_url, ROOMS)
    pg = await Postgres.open(database_url, application_name=ACTOR, size_max=2)
    try:
        async with pg.transaction() as connection:
            for environment in ENVIRONMENTS:
                await store.create_environment(connection, environment)
            if known_token is not None and await is_good(connection, known_token):
                return known_token
            text, _ = await tokens.create(connection, "dev", None, ["admin"], ACTOR)
            return text
    finally:
        await pg.close()


async def is_good(connection: Connection, token: str) -> bool:
    """Whether the token still opens this database."""
    match = TOKEN.fullmatch(token)
    if match is None:
        return False
    good: bool = await connection.fetchval(QUERIES.token_is_good, match[1], digest(match[2]))
    return good


def read_token(folder: Path) -> str | None:
    """The token of an earlier start, or null."""
    try:
        lines = (folder / SETTINGS_FILE).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.removeprefix("RESCIND_TOKEN=") for line in lines if line.startswith("RESCIND_TOKEN=")), None)


def write_settings(folder: Path, url: str, token: str, database_url: str) -> None:
    """Write `rescind.env`, readable by its owner alone, whole or not at all."""
    unfinished = folder / f"{SETTINGS_FILE}.new"
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    text = f"RESCIND_URL={url}\nRESCIND_TOKEN={token}\nRESCIND_DATABASE_URL={shlex.quote(database_url)}\n"
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(folder / SETTINGS_FILE)


def show(folder: Path, url: str, listeners: Mapping[str, str], settings: Settings) -> None:
    """Say where everything is, and that it is ready: the last line is for programs."""
    place = (folder / SETTINGS_FILE).resolve()
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in (
        ("URL", url),
        *((name, f"{address}, {GRPC_ENVIRONMENT}") for name, address in listeners.items()),
        ("environments", ", ".join(ENVIRONMENTS)),
        ("URL and admin token", str(place)),
        ("PostgreSQL", settings.database_url.rpartition("@")[2]),
        ("Valkey", settings.redis_url.rpartition("@")[2]),
        ("for --direct", f"RESCIND_DATABASE_URL in {place}"),
        ("next", f"set -a; . {shlex.quote(str(place))}; set +a"),
        ("try", "rescind flags; rescind set flag.json --reason first; rescind kill FLAG --reason why"),
    ):
        table.add_row(name, value)
    Console(highlight=False, soft_wrap=True).print(table)
    click.echo(f"rescind dev is ready: {url}")
