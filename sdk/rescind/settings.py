"""What a client is told at construction, or finds in `RESCIND_*`. Reading it does no I/O on the network."""

from __future__ import annotations

import hashlib
import os
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from rescind.declarations import is_sendable
from rescind.errors import ConfigurationError

CHILD = "+"
"""Between the name of an instance and what tells a forked child from it."""


class ClientSettings(Struct, frozen=True, kw_only=True):
    """Where the server is, who we are, and where state is kept on this machine."""

    url: str
    token: str
    environment: str | None
    """None: the token names it (`GET /v1/self`)."""
    service: str
    service_version: str
    instance: str
    state_dir: Path
    bootstrap: Path | Mapping[str, Any] | None = None
    """Flags that the service brings along: a flagd document or a snapshot, read where the disk holds none."""

    @property
    def place(self) -> str:
        """Names the last known snapshot's folder: another server, token or environment never finds it."""
        return digest(self.url, self.token, self.environment or "")

    def in_child(self) -> ClientSettings:
        """The same for a child of this process, which is an instance of its own."""
        return msgspec.structs.replace(self, instance=f"{self.instance.partition(CHILD)[0]}{CHILD}{unique()}")


def settings_from(
    *,
    url: str | None = None,
    token: str | None = None,
    environment: str | None = None,
    service: str | None = None,
    service_version: str | None = None,
    instance: str | None = None,
    state_dir: str | Path | None = None,
    bootstrap: str | Path | Mapping[str, Any] | None = None,
    variables: Mapping[str, str] = os.environ,
) -> ClientSettings:
    """Arguments first, then `RESCIND_*`. Raises `ConfigurationError` where URL or token are missing."""
    url = url or variables.get("RESCIND_URL") or ""
    token = token or variables.get("RESCIND_TOKEN") or ""
    missing = [name for name, value in (("url (RESCIND_URL)", url), ("token (RESCIND_TOKEN)", token)) if not value]
    if missing:
        raise ConfigurationError(f"missing: {' and '.join(missing)}; after `rescind dev`: set -a; . DIR/rescind.env; set +a")
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"url must begin with http:// or https://, not {url!r}")
    bootstrap = bootstrap or variables.get("RESCIND_BOOTSTRAP") or None
    service = service or variables.get("RESCIND_SERVICE") or "unnamed"
    settings = ClientSettings(
        url=url.rstrip("/"),
        token=token,
        environment=environment or variables.get("RESCIND_ENVIRONMENT") or None,
        service=service,
        service_version=service_version or variables.get("RESCIND_SERVICE_VERSION") or "",
        instance=instance or f"{service}@{socket.gethostname()}:{unique()}",
        state_dir=Path(state_dir or variables.get("RESCIND_STATE_DIR") or default_state_dir(variables)),
        bootstrap=Path(bootstrap) if isinstance(bootstrap, str) else bootstrap,
    )
    for name in ("url", "token", "environment", "service", "service_version", "instance"):
        if not is_sendable(getattr(settings, name) or ""):
            raise ConfigurationError(f"{name} cannot be written as UTF-8")
    return settings


def unique() -> str:
    """Tells this process from every other: its number, and chance."""
    return f"{os.getpid()}:{uuid.uuid4().hex[:8]}"


def default_state_dir(variables: Mapping[str, str]) -> Path:
    """The user's state directory (XDG Base Directory Specification)."""
    home = variables.get("XDG_STATE_HOME")
    return (Path(home) if home else Path("~/.local/state").expanduser()) / "rescind"


def digest(*parts: str) -> str:
    """A name for `parts` that is safe in a path and tells nothing of them."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
