"""The server's settings, from `RESCIND_*` environment variables: all faults at once, never one after the other."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from runtime.errors import SettingsError
from runtime.sealing import NO_KEYS, Ring

PREFIX = "RESCIND_"
ROLES = ("flags", "sagas")
LOG_LEVELS = ("debug", "info", "warning", "error")


class Settings(Struct, frozen=True, kw_only=True):
    """What a server process is told. Defaults are those of one machine; nothing listens beyond it unless told to."""

    database_url: str
    redis_url: str
    http_host: str = "127.0.0.1"
    http_port: int = 8016
    sync_port: int = 8015
    evaluation_port: int = 8013
    roles: tuple[str, ...] = ROLES
    log_level: str = "info"
    otlp_endpoint: str | None = None
    """Where traces and metrics go over OTLP/HTTP; none: nowhere. Also read from `OTEL_EXPORTER_OTLP_ENDPOINT`."""
    public_url: str | None = None
    """How clients reach this service, where that is not the origin they ask: OFREP's event streams are offered there."""
    allowed_origins: tuple[str, ...] = ()
    """Of pages whose browsers may ask OFREP: `https://shop.example`, or `*`."""
    state_dir: Path | None = None
    """Where a replica keeps what it must know after a restart (P5)."""
    database_connections_max: int = 10
    payload_keys: Ring = NO_KEYS
    """What payloads are sealed with: `ID:BASE64,...`, the first seals, all open; `plain` first seals nothing."""
    retention_days: int | None = None
    """For how many days ended history is kept, where a definition does not say; none: for ever."""
    keys_retention_days: int | None = None
    """For how many more days a key answers once its history has gone (P9); none: for ever."""
    audit_retention_days: int | None = None
    """For how many days at least the audit log is kept; none: for ever."""
    grpc_environment: str | None = None
    """The environment that flagd's two gRPC listeners serve; none: there are no such listeners."""
    grpc_host: str = "127.0.0.1"
    """Off loopback callers need a token, or a certificate where `grpc_tls_client_ca` is set."""
    grpc_tls_certificate: Path | None = None
    grpc_tls_key: Path | None = None
    grpc_tls_client_ca: Path | None = None

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Settings:
        """Read the variables. Raises `SettingsError` with every fault. Variables set to nothing count as unset."""
        given = {name: value for name, value in env.items() if value != ""}
        given.setdefault("RESCIND_OTLP_ENDPOINT", env.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""))
        faults: list[str] = []
        values: dict[str, Any] = {}
        for field, read in READERS.items():
            name = PREFIX + field.upper()
            if not given.get(name):
                if field in REQUIRED:
                    faults.append(f"{name} is not set{_typo(name, given)}")
                continue
            try:
                values[field] = read(given[name])
            except ValueError as error:
                faults.append(f"{name}: {error}")
        faults.extend(_unpaired(values))
        if faults:
            raise SettingsError(faults)
        return cls(**values)


def _unpaired(values: Mapping[str, Any]) -> list[str]:
    """A certificate and its key come together; client certificates are asked for with them."""
    pair = {"grpc_tls_certificate", "grpc_tls_key"}
    given = pair & values.keys()
    if given == pair or (not given and "grpc_tls_client_ca" not in values):
        return []
    return [f"{PREFIX}{field.upper()} is not set: a certificate and its key come together" for field in sorted(pair - given)]


def _typo(name: str, given: Mapping[str, str]) -> str:
    """Name the variable that may have been meant."""
    known = {PREFIX + field.upper() for field in READERS}
    strays = [other for other in given if other.startswith("RESC") and other not in known]
    near = difflib.get_close_matches(name, strays, n=1, cutoff=0.8)
    return f" (did you mean it by {near[0]}?)" if near else ""


def _url(*schemes: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if urlsplit(text).scheme not in schemes or not urlsplit(text).netloc:
            raise ValueError(f"not a URL that starts with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return text

    return read


def _number(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise ValueError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


def _roles(text: str) -> tuple[str, ...]:
    roles = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not roles:
        raise ValueError(f"{', '.join(unknown) or 'nothing'} is not a role; roles are {', '.join(ROLES)}")
    return roles


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip() for part in text.split(",") if part.strip())
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and f"{parts.scheme}://{parts.netloc}".lower() != origin:
            raise ValueError(f"{origin!r} is not an origin, as in https://shop.example, in lower case and without a path")
    return origins


def _log_level(text: str) -> str:
    if text.lower() not in LOG_LEVELS:
        raise ValueError(f"{text!r} is not one of {', '.join(LOG_LEVELS)}")
    return text.lower()


READERS: dict[str, Callable[[str], Any]] = {
    "database_url": _url("postgresql", "postgres"),
    "redis_url": _url("redis", "rediss"),
    "http_host": str,
    "http_port": _number(0, 65535),
    "sync_port": _number(0, 65535),
    "evaluation_port": _number(0, 65535),
    "roles": _roles,
    "log_level": _log_level,
    "otlp_endpoint": _url("http", "https"),
    "public_url": _url("http", "https"),
    "state_dir": _path,
    "allowed_origins": _origins,
    "database_connections_max": _number(1, 1000),
    "payload_keys": Ring.read,
    "retention_days": _number(1, 3_660),
    "keys_retention_days": _number(400, 36_600),
    "audit_retention_days": _number(31, 36_600),
    "grpc_environment": str,
    "grpc_host": str,
    "grpc_tls_certificate": _path,
    "grpc_tls_key": _path,
    "grpc_tls_client_ca": _path,
}
REQUIRED = ("database_url", "redis_url")
