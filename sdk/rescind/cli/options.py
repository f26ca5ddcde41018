"""Options that several commands share, and how their text is read."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from rescind.cli import yaml12
from rescind.cli.session import Session

Command = TypeVar("Command", bound=Callable[..., Any])
FILE_BYTES_MAX = 4 * 1024 * 1024

_PART = re.compile(r"(\d+(?:\.\d+)?)([dhms]?)")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[dhms])*(?:\d+(?:\.\d+)?[dhms]?)")
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}

reason_option = click.option("--reason", required=True, metavar="TEXT", help="Why, for the audit log.")
past_gate_option = click.option(
    "--past-gate",
    is_flag=True,
    help="Turn on although live instances have not declared it. For emergencies: audited, admin only.",
)
since_option = click.option("--since", metavar="T|REVISION", help="Undo effects from this instant or revision on.")


def past(past_gate: bool) -> dict[str, bool]:
    """What a body says of it: nothing, where nobody asks for it. A server of the last release does not know the field."""
    return {"past_gate": True} if past_gate else {}


def scope_of(pairs: Sequence[str], *, raw: bool = False) -> dict[str, Any]:
    """Read `K=V` pairs. Values are JSON scalars where they read as one (true, 3), else text.

    >>> scope_of(["country=DE", "beta=true"])
    {'country': 'DE', 'beta': True}
    """
    scope: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{pair!r} is not K=V", param_hint="--scope")
        scope[name] = text if raw else scalar_of(text)
    return scope


def scalar_of(text: str) -> str | int | float | bool:
    """The JSON scalar that the text is, else the text itself."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return value if isinstance(value, str | int | float | bool) else text


def seconds_of(text: str) -> float:
    """A duration as people write it, in seconds. Raises `UsageError`.

    >>> seconds_of("1h30m"), seconds_of("45"), seconds_of("2d")
    (5400.0, 45.0, 172800.0)
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None or not text.strip():
        raise click.UsageError(f"{text!r} is no duration: write 45s, 30m, 1h30m, 2d")
    return sum(float(value) * _UNITS[unit or "s"] for value, unit in _PART.findall(match[0]))


def document_of(text: str, *, what: str, bytes_max: int = FILE_BYTES_MAX) -> Any:
    """A JSON or YAML document: literal JSON, a file's path, or `-` for standard input."""
    if text.lstrip()[:1] in ("{", "["):
        return parse(text, name=what, yaml=False)
    if text == "-":
        read = sys.stdin.read(bytes_max)
        return parse(read, name="standard input", yaml=read.lstrip()[:1] not in ("{", "["))
    path = Path(text)
    try:
        if path.stat().st_size > bytes_max:
            raise click.UsageError(f"{text} is larger than {bytes_max // 2**20} MiB")
        return parse(path.read_text(encoding="utf-8"), name=text, yaml=path.suffix.lower() in (".yaml", ".yml"))
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{what} {text!r} cannot be read: {error}") from None


def parse(text: str, *, name: str, yaml: bool) -> Any:
    """The document in `text`. Raises `UsageError` that says where it stops making sense."""
    try:
        return yaml12.decode(text) if yaml else msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError) as error:
        raise click.UsageError(f"{name} is not a valid {'YAML' if yaml else 'JSON'} document: {error}") from None


def declined(session: Session, question: str, *, yes: bool) -> bool:
    """Whether a person at a terminal was asked and said no; nobody is asked with `--yes`, with `--json` or in a script."""
    return not yes and not session.json and sys.stdin.isatty() and not click.confirm(question)
