"""`import`, `export`: flagd documents in and out. What an import changes is shown first; what was shown is what is applied."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.markup import escape

from rescind.cli import differences
from rescind.cli.codes import Exit
from rescind.cli.options import document_of, past_gate_option
from rescind.cli.session import Session, common, pass_session
from rescind.errors import ApiError

FILE_BYTES_MAX = 32 * 1024 * 1024
SECONDS_MAX = 300.0


@click.command("import")
@click.argument("file", metavar="FILE")
@click.option("--reason", metavar="TEXT", help="Why, for the audit log.")
@past_gate_option
@click.option("--yes", is_flag=True, help="Apply without asking.")
@common
@pass_session
def import_(session: Session, file: str, reason: str | None, past_gate: bool, yes: bool) -> int:
    """Import a flagd document: FILE is JSON or YAML (`-`: standard input), its flags keyed or in a list.

    The difference is shown, and applied once it is confirmed: exactly what was shown, or nothing. Flags that the file does
    not name stay as they are. With --json, or where nobody can be asked, --yes applies it.
    """
    document = _normal(document_of(file, what="the flagd document", bytes_max=FILE_BYTES_MAX))
    passed = {"past_gate": "true"} if past_gate else {}
    while True:
        difference = _send(session, document, "compared", dry_run="true", **passed)
        if not session.json:
            differences.show(session.console, difference, session.environment)
        if differences.is_empty(difference):
            return _say(session, {**difference, "applied": False}, "nothing to change")
        if not yes and not _is_confirmed(session):
            return _unapplied(session, difference)
        try:
            asked = {"reason": reason or None, "expected_revision": difference["revision"], **passed}
            answer = _send(session, document, "applied", **asked)
        except ApiError as error:
            if error.code != "revision_mismatch" or session.json:
                raise
            session.errors.print(
                "[yellow]the environment has changed meanwhile: nothing was applied. The difference is now:[/]"
            )
            if yes:
                differences.show(session.console, _send(session, document, "compared", dry_run="true"), session.environment)
                session.errors.print("next: look at it, then import again")
                return Exit.FAILED
            continue
        return _say(session, {**difference, **answer, "applied": True}, f"imported at revision {answer['revision']}")


def _send(session: Session, document: Any, done: str, **params: Any) -> Any:
    """Post the document, with a sign of life where that takes long."""
    count = len(document.get("flags") or ()) if isinstance(document, dict) else 0
    with session.errors.status(f"{count} flags are being {done} …"):
        return session.api.request("POST", session.within("/import"), json=document, params=params, timeout_seconds=SECONDS_MAX)


def _normal(document: Any) -> Any:
    """A document whose root is the list of flags, as the daemon's own files may be, under `flags`."""
    return {"flags": document} if isinstance(document, list) else document


def _is_confirmed(session: Session) -> bool:
    if session.json or not sys.stdin.isatty():
        return False
    return click.confirm(f"Apply this to {session.environment}?", err=True)


def _unapplied(session: Session, difference: dict[str, Any]) -> int:
    if session.json:
        session.show_json({**difference, "applied": False})
    else:
        session.errors.print("nothing was applied; --yes applies it without asking")
    return Exit.OK


def _say(session: Session, answer: dict[str, Any], sentence: str) -> int:
    session.tell(answer, f"[bold]{escape(sentence)}[/]")
    return Exit.OK


@click.command()
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write it there.")
@click.option("--effective", is_flag=True, help="As served now, kills laid in: for a flagd that stands by itself.")
@common
@pass_session
def export(session: Session, output: Path | None, effective: bool) -> None:
    """Export all flags as one flagd document, as they were written, prerequisites as rules."""
    params = {"effective": "true"} if effective else None
    document = session.api.request("GET", session.within("/export"), params=params, timeout_seconds=SECONDS_MAX)
    if output is None:
        session.show_json(document)
        return
    try:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    except OSError as error:
        raise click.UsageError(f"{output} cannot be written: {error.strerror}") from None
    if session.json:
        session.show_json({"file": str(output), "flags": len(document["flags"])})
    else:
        session.console.print(f"exported {len(document['flags'])} flags to [bold]{escape(str(output))}[/]")


COMMANDS = (import_, export)
