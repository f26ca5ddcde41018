"""`rescind migrations check FILE...`: the classes of migrations as a check in CI. No server and no database is asked.

What runs before the new code (`pre`, the default) may only add; what runs a release later (`post`, by option or by a name like
`NNNN_post_words.sql`) may do whatever can be read.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click
import msgspec
from rescind.cli.tables import plural, table_of
from rich.console import Console

from server.rollbacks.statements.classes import Finding, Migration, StatementClass, worst
from server.rollbacks.statements.judging import judge, judge_each
from server.rollbacks.statements.rules import RULES

Phase = Literal["pre", "post"]
ALLOWED = {
    "pre": frozenset({StatementClass.ADDITIVE}),
    "post": frozenset({StatementClass.ADDITIVE, StatementClass.NEEDS_BACKFILL, StatementClass.DESTRUCTIVE}),
}
FILE_BYTES_MAX = 4 * 1024 * 1024
PLAIN_WIDTH = 160


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One finding, and whether it passes. `accepted`: only because somebody said so on the command line."""

    finding: Finding
    phase: Phase
    allowed: bool
    accepted: bool = False


@click.group()
def migrations() -> None:
    """Look at database migrations before they run."""


@migrations.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--phase", type=click.Choice(["pre", "post"]), help="Of every file; else by its name (NNNN_post_...), else pre.")
@click.option("--one-release", is_flag=True, help="The files are one release's; else each is one, and those before tell types.")
@click.option(
    "--allow", multiple=True, type=click.Choice([str(one) for one in StatementClass]), help="Let a class pass in pre, too."
)
@click.option("--accept", multiple=True, metavar="RULE[=FILE]", help="Let a rule's findings pass, everywhere or in one file.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def check(
    context: click.Context, files: tuple[str, ...], phase: Phase | None, one_release: bool, allow: tuple[str, ...],
    accept: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Class every statement of FILE...; exit 1 if one is of a class that its phase does not allow.

    Classes: additive, needs_backfill, destructive, unknown (never taken for additive).
    """
    accepted = [accepted_of(one) for one in accept]
    read = [migration_of(file) for file in files]
    found = judge(read) if one_release else judge_each(read)
    judged = [let_pass(one, phase, frozenset(map(StatementClass, allow)), accepted) for one in found]
    if as_json:
        click.echo(msgspec.json.encode(answer_of(files, judged)))
    else:
        show(judged, len(files))
    context.exit(0 if all(one.allowed for one in judged) else 1)


def migration_of(file: str) -> Migration:
    """The file as it is. Raises `UsageError` where it cannot be read."""
    path = Path(file)
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise click.UsageError(f"{file} is larger than {FILE_BYTES_MAX // 2**20} MiB")
        return Migration(name=file, sql=path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{file} cannot be read: {error}") from None


def accepted_of(text: str) -> tuple[str, str]:
    """`RULE` or `RULE=FILE`. Raises `UsageError` for a rule that there is not."""
    rule, _, file = text.partition("=")
    if rule not in RULES:
        raise click.UsageError(f"--accept: no rule {rule!r}; there are {', '.join(RULES)}")
    return rule, file


def phase_of(migration: str) -> Phase:
    """By the file's name.

    >>> phase_of("db/0007_post_drop_note.sql"), phase_of("db/V7__drop_note.sql")
    ('post', 'pre')
    """
    return "post" if Path(migration).name.partition("_")[2].startswith("post_") else "pre"


def let_pass(
    finding: Finding, phase: Phase | None, allow: frozenset[StatementClass], accepted: Sequence[tuple[str, str]]
) -> Judged:
    """Whether a finding passes, by its phase, by class, or by name."""
    its_phase = phase or phase_of(finding.migration)
    if finding.statement_class in ALLOWED[its_phase] | allow:
        return Judged(finding=finding, phase=its_phase, allowed=True)
    by_name = any(rule == finding.rule and (not file or Path(file) == Path(finding.migration)) for rule, file in accepted)
    return Judged(finding=finding, phase=its_phase, allowed=by_name, accepted=by_name)


def answer_of(files: Sequence[str], judged: Sequence[Judged]) -> dict[str, object]:
    """`--json`: per file its class, and every finding."""
    classes = {
        file: str(worst(one.finding.statement_class for one in judged if one.finding.migration == file)) for file in files
    }
    rows = [
        {**msgspec.to_builtins(one.finding), "phase": one.phase, "allowed": one.allowed, "accepted": one.accepted}
        for one in judged
    ]
    return {"allowed": all(one.allowed for one in judged), "files": classes, "findings": rows}


def show(judged: Sequence[Judged], file_count: int) -> None:
    """For people: what does not pass, what passes by name, and what to know; not the rest."""
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    told = [one for one in judged if not one.allowed or (not one.accepted and not is_additive(one))]
    if told:
        console.print(table_of([row_of(one) for one in told], ("place", "class", "rule", "about", "allowed", "why")))
    locks = [one.finding for one in judged if one.allowed and one.finding.note]
    for finding in locks:
        console.print(f"note: {finding.migration}:{finding.line}: {finding.about}: {finding.note}", markup=False)
    for rule, number in Counter(one.finding.rule for one in judged if one.accepted).items():
        console.print(f"accepted by name: {number} {rule}", markup=False)
    refused = sum(not one.allowed for one in judged)
    verdict = f"{refused} not allowed" if refused else "all allowed"
    console.print(f"{plural(len(judged), 'statement')} in {plural(file_count, 'file')}: {verdict}", markup=False)


def is_additive(one: Judged) -> bool:
    """Whether there is nothing to say of it."""
    return one.finding.statement_class == StatementClass.ADDITIVE


def row_of(one: Judged) -> dict[str, str]:
    """A finding as a line of the table."""
    finding = one.finding
    allowed = "accepted" if one.accepted else f"in {one.phase}" if one.allowed else "no"
    why = f"{finding.reason} ({finding.note})" if finding.note else finding.reason
    return {
        "place": f"{finding.migration}:{finding.line}", "class": str(finding.statement_class), "allowed": allowed,
        "rule": finding.rule, "about": finding.about, "why": why,
    }  # fmt: skip
