"""What every command shares: where the server is, who asks, for which environment, and how answers are shown.

URL and token come from the options, `RESCIND_*`, or the `rescind.env` of a local `rescind dev`, in this order. The options
may stand before or after the verb.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click
import msgspec
from rich.console import Console

from rescind.errors import ConfigurationError
from rescind.transport import Api

LOCAL_SETTINGS = Path(".rescind") / "rescind.env"
DEFAULT_ENVIRONMENT = "production"
PLAIN_WIDTH = 240

Command = TypeVar("Command", bound=Callable[..., Any])


class Session:
    """The options given, and what follows from them. One per call of the command."""

    def __init__(self) -> None:
        self.url: str | None = None
        self.token: str | None = None
        self.given_environment: str | None = None
        self.json = False
        self.console = console_on(stderr=False)
        self.errors = console_on(stderr=True)
        self._api: Api | None = None
        self._self: dict[str, Any] | None = None

    @property
    def api(self) -> Api:
        """Calls to the server. Raises `ConfigurationError` where URL or token are missing."""
        if self._api is None:
            local = read_settings(LOCAL_SETTINGS)
            url = self.url or os.environ.get("RESCIND_URL") or local.get("RESCIND_URL")
            token = self.token or os.environ.get("RESCIND_TOKEN") or local.get("RESCIND_TOKEN")
            if not url or not token:
                missing = " and ".join(name for name, value in (("--url", url), ("--token", token)) if not value)
                raise ConfigurationError(
                    f"{missing} missing: give it, set RESCIND_URL and RESCIND_TOKEN, or start `rescind dev` in this folder "
                    "(elsewhere: set -a; . DIR/rescind.env; set +a)"
                )
            if not url.startswith(("http://", "https://")):
                raise ConfigurationError(f"--url must begin with http:// or https://, not {url[:80]!r}")
            self.url, self.token = url, token
            self._api = Api(url, token, self.given_environment or os.environ.get("RESCIND_ENVIRONMENT") or None)
        return self._api

    @property
    def me(self) -> dict[str, Any]:
        """Who the token is (`GET /v1/self`), asked once."""
        if self._self is None:
            self._self = self.api.request("GET", "/v1/self", timeout_seconds=5)
        return self._self

    @property
    def environment(self) -> str:
        """The option, else `RESCIND_ENVIRONMENT`, else the token's own, else production."""
        named = self.given_environment or os.environ.get("RESCIND_ENVIRONMENT")
        return named or self.me.get("environment") or DEFAULT_ENVIRONMENT

    @property
    def environment_of_direct(self) -> str:
        """The same where no server can be asked: the option, else `RESCIND_ENVIRONMENT`, else production."""
        return self.given_environment or os.environ.get("RESCIND_ENVIRONMENT") or DEFAULT_ENVIRONMENT

    def within(self, path: str) -> str:
        """`/v1/environments/<environment><path>`."""
        return f"/v1/environments/{self.environment}{path}"

    def show_json(self, value: object) -> None:
        """Print the API's own JSON: indented for people, one line for programs."""
        data = msgspec.json.encode(value)
        click.echo(msgspec.json.format(data, indent=2) if sys.stdout.isatty() else data)

    def tell(self, answer: object, line: str) -> None:
        """Print what a command did: the API's own JSON where that is asked for, or the line."""
        if self.json:
            self.show_json(answer)
        else:
            self.console.print(line)


def console_on(*, stderr: bool) -> Console:
    """A console as wide as the terminal; where there is none, `COLUMNS` or wide enough."""
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(
        stderr=stderr,
        highlight=False,
        soft_wrap=True,
        width=None if is_terminal else plain_width(os.environ.get("COLUMNS", "")),
    )


def plain_width(columns: str) -> int:
    """The width of what is no terminal.

    >>> plain_width("80"), plain_width(""), plain_width("0")
    (80, 240, 240)
    """
    return int(columns) if columns.isdecimal() and int(columns) > 0 else PLAIN_WIDTH


def read_settings(path: Path) -> dict[str, str]:
    """The `NAME=value` lines of a file; nothing where it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}


def part(text: str) -> str:
    """Text of a person as one part of a path."""
    return quote(text, safe="")


def session_of(context: click.Context) -> Session:
    """The call's session, made by whichever option is read first."""
    session = context.find_root().ensure_object(Session)
    assert session is not None
    return session


pass_session = click.make_pass_decorator(Session, ensure=True)


def _keep(field: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        del parameter
        if value not in (None, False):
            setattr(session_of(context), field, value)

    return keep


def common(command: Command) -> Command:
    """Give a command the options that all share."""
    options = (
        click.option("--url", metavar="URL", expose_value=False, callback=_keep("url"), help="The server (RESCIND_URL)."),
        click.option("--token", metavar="TOKEN", expose_value=False, callback=_keep("token"), help="RESCIND_TOKEN."),
        click.option(
            "--environment", "-e", "--env", metavar="NAME", expose_value=False, callback=_keep("given_environment"),
            help="RESCIND_ENVIRONMENT, else the token's own.",
        ),
        click.option("--json", is_flag=True, expose_value=False, callback=_keep("json"), help="The API's own JSON."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command
