"""`rescind explain`: which rule decides a flag for a context, and why, as a tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec
from rich.markup import escape
from rich.tree import Tree

from rescind.cli.options import document_of, scalar_of
from rescind.cli.session import Session, common, part, pass_session
from rescind.cli.tables import text_of

SOURCES = {
    "not_found": "there is no such flag",
    "unreadable": "the server's version cannot read the definition: the off variant",
    "disabled": "the flag is disabled: the caller's default",
    "kill": "a kill: the off variant",
    "no_targeting": "no targeting: the default variant, for everyone",
    "default": "no rule decided: the default variant",
    "failed": "a rule failed: the caller's default",
}


@click.command()
@click.argument("flag")
@click.argument("attributes", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--context", metavar="FILE|JSON", help="The evaluation context: a file (`-`: standard input) or literal JSON.")
@common
@pass_session
def explain(session: Session, flag: str, attributes: tuple[str, ...], context: str | None) -> None:
    """Say which rule of FLAG decides for a context, and why.

    \b
    For example:
      rescind explain checkout.new-flow targetingKey=user-4711 country=DE
      rescind explain checkout.new-flow --context '{"targetingKey": "user-4711", "country": "DE"}'
    """
    body = {"context": context_of(context, attributes)}
    told = session.api.request("POST", session.within(f"/flags/{part(flag)}/explain"), json=body)
    if session.json:
        session.show_json(told)
        return
    session.console.print(tree_of(told))
    for fault in told["faults"]:
        session.console.print(f"  {escape(fault['pointer'] or '/')}  {escape(fault['detail'])}")
    if told["truncated"]:
        session.console.print("[dim]there is more than are shown[/]")


def context_of(document: str | None, pairs: Sequence[str]) -> dict[str, Any]:
    """The evaluation context: a document, and pairs laid over it. Raises `UsageError`.

    >>> context_of('{"country": "DE"}', ["targetingKey=42", "age=30", "beta=true"])
    {'country': 'DE', 'targetingKey': '42', 'age': 30, 'beta': True}
    """
    context = {} if document is None else document_of(document, what="the context")
    if not isinstance(context, dict):
        raise click.UsageError("an evaluation context is an object")
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise click.UsageError(f"{pair!r} is not KEY=VALUE")
        context[name] = text if name == "targetingKey" else scalar_of(text)
    return context


def tree_of(told: Mapping[str, Any]) -> Tree:
    """The whole explanation: the answer on top, then kills, then what was found."""
    place = f"[bold]{escape(told['flag'])}[/] in {escape(told['environment'])} at {told['revision']}"
    tree = Tree(f"{place}: {answer_of(told)}\n{why(told)}")
    for kill in told["kills"]:
        scope = text_of(kill["scope"]) or "everyone"
        verdict = "[red]in its scope[/]" if kill["in_scope"] else "[dim]not in its scope[/]"
        absent = f" [dim](absent: {escape(', '.join(kill['absent']))})[/]" if kill["absent"] else ""
        tree.add(f"kill for {escape(scope)} to {escape(kill['off_variant'])}: {verdict}{absent}")
    for finding in told["findings"]:
        _grow(tree, finding)
    return tree


def answer_of(told: Mapping[str, Any]) -> str:
    """Variant, value and reason."""
    code = f", {told['error_code']}: {told['error_details']}" if told.get("error_code") else ""
    served = "the caller's default" if told["variant"] is None else f"{told['variant']} = {_text(told['value'])}"
    return f"[bold]{escape(served)}[/] [dim]({escape(told['reason'] + code)})[/]"


def why(told: Mapping[str, Any]) -> str:
    """What decided, in a line."""
    rule, place = told["rule"], f" [dim]{escape(told['pointer'])}[/]" if told["pointer"] else ""
    if told["decided"] == "prerequisite":
        return f"decided by a prerequisite that does not hold: [bold]{escape(rule['name'] or '')}[/]: the off variant{place}"
    if told["decided"] != "rule":
        said = SOURCES.get(told["decided"], told["decided"])
        return f"{said}{place}" if told["decided"] == "default" else f"decided by {said}{place}"
    if rule is None:
        return f"decided by the targeting{place}"
    name = f" [bold]{escape(rule['name'])}[/]" if rule["name"] else ""
    return f"decided by rule {rule['number']}{name}{place}"


def _grow(tree: Tree, finding: Mapping[str, Any]) -> None:
    branch = tree.add(finding_line(finding))
    for inner in finding.get("findings", ()):
        _grow(branch, inner)


def finding_line(finding: Mapping[str, Any]) -> str:
    """One finding: operator, what it found, where the subject falls, what it gave."""
    parts = [f"[bold]{escape(finding['operator'])}[/] → {escape(_text(finding['value']))}"]
    parts += [f"{escape(name)} is {escape(_text(value))}" for name, value in finding.get("found", {}).items()]
    if finding.get("split"):
        parts.append(split_line(finding["split"]))
    if "operand" in finding:
        parts.append(f"decided by operand {finding['operand'] + 1}")
    return f"{', '.join(parts)} [dim]{escape(finding['pointer'])}[/]"


def split_line(split: Mapping[str, Any]) -> str:
    """Where the subject falls.

    >>> split_line({"by": None, "hash": 7, "position": 31, "total": 100, "start": 25, "weight": 75, "generation": "v3"})
    'at 31 of 100 (share 25 to 99) by flag and targeting key, v3'
    """
    by = "flag and targeting key" if split["by"] is None else escape(_text(split["by"]))
    if split["hash"] is None:
        return "in no share: there is nothing to hash"
    if not split["total"]:
        return "in no share: the weights decide nothing"
    end = split["start"] + split["weight"] - 1
    return f"at {split['position']} of {split['total']} (share {split['start']} to {end}) by {by}, {split['generation']}"


def _text(value: Any) -> str:
    return "absent" if value is None else msgspec.json.encode(value).decode()


COMMANDS = (explain,)
