"""Which runs of sagas are meant: the options that `rescind sagas instances` and `bulk` share, and what they say on the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from rescind.cli.options import scope_of, seconds_of

STATES = ("running", "undoing", "waiting", "killed", "done", "undone")
OPTIONS = (
    click.option("--state", "status", type=click.Choice(STATES), help="Only those that stand so."),
    click.option("--paused/--not-paused", default=None, help="Only those that are paused, or are not."),
    click.option("--version", metavar="VERSION", help="Only those of this version."),
    click.option("--flag", metavar="FLAG", help="Only those under this flag."),
    click.option("--subject", metavar="SUBJECT", help="Only those of this subject."),
    click.option("--attribute", "attributes", metavar="K=V", multiple=True, help="Only those with this attribute; repeatable."),
    click.option("--cause", metavar="CAUSE", help="Only those that wait or turned back for this, as `why` says."),
    click.option("--error", metavar="TYPE", help="Only those whose step failed with an error of this type."),
    click.option("--older-than", metavar="TIME", help="Only those started longer ago than this: 45s, 30m, 2d."),
    click.option("--younger-than", metavar="TIME", help="Only those started since."),
)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a filter."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def read(given: Mapping[str, Any]) -> dict[str, Any]:
    """The filter as a body has it: only what was said. Raises `UsageError`."""
    filter_ = {name: value for name, value in given.items() if value not in (None, ())}
    if "attributes" in filter_:
        filter_["attributes"] = scope_of(filter_["attributes"])
    for option, bound in (("older_than", "started_before"), ("younger_than", "started_after")):
        if option in filter_:
            ago = timedelta(seconds=seconds_of(filter_.pop(option)))
            filter_[bound] = (datetime.now(UTC) - ago).isoformat()
    return filter_


def params(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The filter as a query has it."""
    attributes: dict[str, Any] = wanted.get("attributes", {})
    told = {name: _text(value) for name, value in wanted.items() if name != "attributes"}
    return {**told, **({"attribute": [f"{name}:{_text(value)}" for name, value in attributes.items()]} if attributes else {})}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
