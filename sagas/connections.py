"""Connections: how declared executors reach the world, set up by admins, with secrets by reference only.

A definition names a connection; the address, the credentials and the right to use them never stand in a definition. A secret
is written `env:NAME` or `file:PATH` and read at the moment of use: it is neither stored nor logged in clear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import asyncpg
import msgspec
from msgspec import Meta, Struct
from rescind.wire import Fault, Name

from runtime.queries import Queries
from sagas.core.faults import read

QUERIES = Queries.load("sagas", "connections")
SECRET_BYTES_MAX = 16_384
MEANT = {
    "/secret": "env:NAME or file:/PATH, read by the server",
    "/url": "begins with http:// or https://",
    "/sender": "an address with an @",
}

SecretReference = Annotated[str, Meta(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)$", max_length=1024)]
Host = Annotated[str, Meta(min_length=1, max_length=253)]
Url = Annotated[str, Meta(pattern=r"^https?://", max_length=2048)]


class _Granted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    granted: Annotated[list[str], Meta(max_length=1000)] = []
    """The sagas and loose kinds whose definitions may move money through it; `*` is all of them."""
    allow_hosts: Annotated[list[Host], Meta(max_length=100)] = []
    """The hosts it may reach; empty: only the one of its own address."""
    description: Annotated[str, Meta(max_length=4096)] = ""


class StripeConnection(
    _Granted, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="stripe", tag_field="type", omit_defaults=True
):
    """A payment provider that speaks Stripe's HTTP API."""

    url: Url = "https://api.stripe.com"
    secret: SecretReference


class SmtpConnection(
    _Granted, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="smtp", tag_field="type", omit_defaults=True
):
    """A mail host. `secret` is the password of `username`."""

    host: Host
    port: Annotated[int, Meta(ge=1, le=65_535)] = 587
    sender: Annotated[str, Meta(min_length=3, max_length=320, pattern="@")]
    username: str | None = None
    secret: SecretReference | None = None
    tls: bool = False
    start_tls: bool | None = None
    """Null: where the host offers it."""


class WebhookConnection(
    _Granted, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="webhook", tag_field="type", omit_defaults=True
):
    """A host that takes webhooks, signed per Standard Webhooks with `secret` (`whsec_...`)."""

    url: Url
    secret: SecretReference | None = None


Connection = StripeConnection | SmtpConnection | WebhookConnection


class ConnectionRow(Struct, frozen=True, kw_only=True):
    """A connection as it is kept."""

    name: str
    document: dict[str, Any]
    updated_by: str
    updated_at: str
    warnings: list[str] = []
    """Of the one just set up: what the server cannot read yet."""


def check(document: object) -> list[Fault]:
    """Every fault of a connection's document, each with its JSON pointer."""
    return parse(document)[1]


def parse(document: object) -> tuple[Connection | None, list[Fault]]:
    """The connection, or null and every fault."""
    connection, faults = read(Connection, document)
    if connection is None:
        return None, [_in_words(fault) for fault in faults]
    faults = _relations(connection)
    return (None, faults) if faults else (connection, [])


def _in_words(fault: Fault) -> Fault:
    """What a pattern means, in place of the pattern."""
    said = MEANT.get(fault.pointer) if "regex" in fault.detail else None
    return msgspec.structs.replace(fault, detail=said) if said else fault


def _relations(connection: Connection) -> list[Fault]:
    if isinstance(connection, SmtpConnection):
        host: str | None = connection.host
        at = "/host"
    else:
        at = "/url"
        try:
            parts = urlsplit(connection.url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            return [Fault(pointer=at, detail=f"is not a URL: {error}", code="url")]
        if parts.username or parts.password:
            return [Fault(pointer=at, detail="carries credentials; give them as a secret", code="credentials_in_url")]
    if not host:
        return [Fault(pointer=at, detail="names no host", code="url")]
    if connection.allow_hosts and host not in connection.allow_hosts:
        return [
            Fault(pointer="/allow_hosts", detail=f"does not name {host!r}, the connection's own host", code="host_not_allowed")
        ]
    return []


def is_name(text: str) -> bool:
    """Whether a connection may be called so."""
    return read(Name, text)[0] is not None


def grants(connection: Connection, name: str) -> bool:
    """Whether the definitions of this saga or loose kind may move money through it."""
    return "*" in connection.granted or name in connection.granted


def resolve(reference: str, environ: Mapping[str, str]) -> str:
    """The secret behind `env:NAME` or `file:PATH`. Raises `LookupError` that names the reference and never the secret."""
    scheme, _, place = reference.partition(":")
    if scheme == "env":
        secret = environ.get(place, "")
    else:
        try:
            secret = Path(place).read_bytes()[:SECRET_BYTES_MAX].decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise LookupError(f"the secret {reference} cannot be read: {type(error).__name__}") from None
    if not secret:
        raise LookupError(f"the secret {reference} is empty or missing")
    return secret


def warnings(connection: Connection, environ: Mapping[str, str]) -> list[str]:
    """What this server cannot read now and would need: a warning, as the secret may come later, or be another server's."""
    if connection.secret is None:
        return []
    try:
        resolve(connection.secret, environ)
    except LookupError as error:
        return [f"{error.args[0]} on the server that was asked: until it is there, what needs it is tried again and again"]
    return []


async def get(connection: asyncpg.Connection, environment: str, name: str) -> Connection | None:
    """The connection of this name, or null."""
    document = await connection.fetchval(QUERIES.get, environment, name)
    return None if document is None else msgspec.convert(document, Connection)


async def listing(connection: asyncpg.Connection, environment: str) -> Sequence[ConnectionRow]:
    """Every connection of the environment, by name."""
    rows = await connection.fetch(QUERIES.listing, environment)
    return [_row(row) for row in rows]


async def put(
    connection: asyncpg.Connection, environment: str, name: str, document: Connection, *, actor: str
) -> ConnectionRow:
    """Set up or replace a connection."""
    row = await connection.fetchrow(QUERIES.put, environment, name, msgspec.to_builtins(document), actor)
    return _row(row)


async def delete(connection: asyncpg.Connection, environment: str, name: str) -> bool:
    """Whether there was one to delete."""
    return await connection.fetchval(QUERIES.delete, environment, name) is not None


def _row(row: Any) -> ConnectionRow:
    return ConnectionRow(
        name=row["name"], document=row["document"], updated_by=row["updated_by"], updated_at=row["updated_at"].isoformat()
    )
