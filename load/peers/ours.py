"""Rescind's own client on a server of its own, outside and inside of a request that is pinned to a revision."""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import rescind
from rescind import evaluations
from rescind.evaluations import Evaluations

from load.peers.flags import FLAGS, SHARE, Rule
from load.system import ENVIRONMENT, Site

READY_SECONDS = 30.0


def definitions() -> dict[str, Any]:
    """The flags as flagd writes them."""
    return {key: definition_of(rules) for key, rules in FLAGS.items()}


def definition_of(rules: list[Rule]) -> dict[str, Any]:
    """A flag with these rules."""
    bare = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off" if rules else "on"}
    chain = [part for rule in rules for part in _parts(rule)]
    return {**bare, "targeting": {"if": [*chain, "off"]}} if rules else bare


def _parts(rule: Rule) -> tuple[Any, Any]:
    condition = {"and": [{"in": [{"var": "country"}, list(rule.countries)]}, {"==": [{"var": "plan"}, rule.plan]}]}
    return condition, {"fractional": [["on", SHARE], ["off", 100 - SHARE]]}


def context_of(user: dict[str, Any]) -> dict[str, Any]:
    """A user as an evaluation context."""
    return {"targetingKey": user["key"], "country": user["country"], "plan": user["plan"], "email": user["email"]}


def put_flags(site: Site) -> None:
    """Write them."""
    for key, definition in definitions().items():
        body = {"flag": {"key": key, "definition": definition}, "reason": "load"}
        site.api.request("PUT", site.api.within(f"/flags/{key}"), json=body)


def client_of(site: Site, folder: Path, kind: type[rescind.Client] = rescind.Client) -> rescind.Client:
    """A client that has its snapshot."""
    client = kind(url=site.url, token=site.token, environment=ENVIRONMENT, service="load", state_dir=folder)
    assert client.wait_ready(READY_SECONDS)
    return client


class Native:
    """`client.boolean`, as a service calls it."""

    name = "Rescind"
    statement = "client.boolean(key, False, context)"

    def __init__(self, client: rescind.Client) -> None:
        self.client = client

    def context(self, user: dict[str, Any]) -> Any:
        """A dict."""
        return context_of(user)

    def close(self) -> None:
        """Stop its thread."""
        self.client.close()


class Pinned(Native):
    """The same inside of a request, which the middleware pins to one revision."""

    name = "Rescind, in a pinned request"

    def __init__(self, client: rescind.Client) -> None:
        super().__init__(client)
        client.core.context.pin.set(client.core.causality.pin())


class Uncounted(Native):
    """The same without counts."""

    name = "Rescind, without counts"


class UncountedPinned(Pinned):
    """The same in a request: what the interpreter learns of a function's callers is alike with and without."""

    name = "Rescind, in a pinned request, without counts"


def uncounted() -> type[rescind.Client]:
    """A client whose `boolean` is what it is, less the loop that counts."""
    source = textwrap.dedent(inspect.getsource(Evaluations.boolean))
    counting = re.compile(r"^( +)for _ in outcome\.tally:.*\n +(return .*)$", re.MULTILINE)
    bare, number = counting.subn(r"\1\2", source)
    assert number == 1, "the loop that counts is not where it was"
    space = dict(vars(evaluations))
    exec(bare, space)
    return type("Uncounted", (rescind.Client,), {"boolean": space["boolean"]})
