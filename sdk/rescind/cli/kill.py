"""`rescind kill FLAG`, or a release: preview, confirm, kill, follow. The safe action is the fast one: only a person's no holds
it up."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from importlib.metadata import entry_points
from typing import Any, NamedTuple

import click
from rich.markup import escape

from rescind.cli import preview as previews
from rescind.cli.codes import Exit
from rescind.cli.failures import say, say_not_killed
from rescind.cli.following import Record, follow, sum_up
from rescind.cli.options import declined, reason_option, scope_of, since_option
from rescind.cli.session import Session, common, part, pass_session
from rescind.errors import ApiError, ConfigurationError, RescindError, Unreachable

KILL_SECONDS = 15.0
CONTAINED_SECONDS = 60.0
GOAL_FIELDS = {"contained": "contained_at", "drained": "drained_at", "settled": "settled_at", "verified": "verified_at"}


@click.command()
@click.argument("flag", required=False)
@click.option("--release", metavar="NAME", help="All flags of this release instead, in one revision and one rollback.")
@reason_option
@click.option("--incident", metavar="ID", help="The incident this belongs to.")
@click.option(
    "--compensate",
    type=click.Choice(["auto", "hold", "none"]),
    default="auto",
    show_default=True,
    help="Undo what was done: at once, when a person resumes it, or not at all.",
)
@click.option(
    "--grace", "grace_seconds", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Undo nothing before."
)
@click.option("--fault-at", metavar="T", help="When the fault began (RFC 3339), for the times of the report.")
@click.option("--detected-at", metavar="T", help="When it was noticed.")
@since_option
@click.option("--scope", multiple=True, metavar="K=V", help="Only where this attribute has this value; all of several.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--no-preview", is_flag=True, help="Do not look first.")
@click.option("--direct", is_flag=True, help="Through PostgreSQL (RESCIND_DATABASE_URL), where no server answers.")
@click.option(
    "--wait",
    "goal",
    type=click.Choice(list(GOAL_FIELDS)),
    default="contained",
    show_default=True,
    help="Come back when no instance acts on it, when the set of effects is closed, when all is undone.",
)
@click.option("--timeout", "timeout_seconds", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop watching then.")
@common
@pass_session
def kill(
    session: Session,
    /,
    flag: str | None,
    release: str | None,
    goal: str,
    timeout_seconds: float | None,
    scope: tuple[str, ...],
    **asked: Any,
) -> int:
    """Put FLAG on its off variant for everyone at once, and undo what was done under it."""
    target = target_of(flag, release)
    yes, no_preview, direct = (asked.pop(name) for name in ("yes", "no_preview", "direct"))
    body = {name: value for name, value in {**asked, "scope": scope_of(scope)}.items() if value is not None}
    try:
        if direct:
            return kill_directly(session, target, {**body, "decided_at": datetime.now(UTC).isoformat()})
        refuse_what_cannot_be(session, goal)
        if not no_preview and not session.json:
            look(session, target, asked["since"], scope)
        if declined(session, f"Kill {target} in {session.environment}?", yes=yes):
            session.console.print("nothing was killed")
            return Exit.FAILED
        answer = strike(session, target, {**body, "decided_at": datetime.now(UTC).isoformat()})
    except RescindError as error:
        return say_not_killed(session, error)
    timeout = CONTAINED_SECONDS if timeout_seconds is None and goal == "contained" else timeout_seconds
    try:
        record = follow(session, answer["rollback_id"], until=reaches(goal), timeout_seconds=timeout, quiet=session.json)
    except RescindError as error:
        say(session, error)
        session.errors.print(f"The kill stands: rollback {answer['rollback_id']}.")
        return Exit.NOT_CONTAINED
    return conclude(session, answer, record, goal)


class Target(NamedTuple):
    """What is killed: one flag, or the flags of a release."""

    name: str
    is_release: bool

    @property
    def path(self) -> str:
        """Where it is, in its environment."""
        return f"/{'releases' if self.is_release else 'flags'}/{part(self.name)}"

    def __str__(self) -> str:
        return f"release {self.name}" if self.is_release else self.name


def target_of(flag: str | None, release: str | None) -> Target:
    """The one that was named. Raises `UsageError` where none is, or both are."""
    if (flag is None) == (release is None):
        raise click.UsageError("name a FLAG, or a release with --release NAME")
    return Target(flag or release or "", release is not None)


def refuse_what_cannot_be(session: Session, goal: str) -> None:
    """`--wait verified` before anything is done, where nothing measures health."""
    if goal == "verified" and not session.me.get("measures_health", False):
        raise ApiError(
            422, "nothing_measures_health", "Nothing measures health here: nothing can be verified. The flag was not killed.",
            next_step="kill with --wait settled",
        )  # fmt: skip


def look(session: Session, target: Target, since: str | None, scope: tuple[str, ...]) -> None:
    """Show the preview. One that fails, for whatever reason but an unknown flag, does not stand in the way."""
    if scope:
        session.console.print(f"in scope: {escape(', '.join(scope))}")
    try:
        found = previews.fetch(session, target.path, since=since, scope=scope)
        (previews.show_release if target.is_release else previews.show)(session, found)
    except ApiError as error:
        if error.status in (401, 404):
            raise
        session.console.print(f"[yellow]no preview:[/] {escape(error.detail)}")
    except Unreachable as error:
        session.console.print(f"[yellow]no preview:[/] {escape(str(error))}")


def strike(session: Session, target: Target, body: dict[str, Any]) -> dict[str, Any]:
    """Kill, and say how long that took."""
    begun = time.monotonic()
    answer: dict[str, Any] = session.api.request(
        "POST", session.within(f"{target.path}/kill"), json=body, timeout_seconds=KILL_SECONDS
    )
    if not session.json:
        took = (time.monotonic() - begun) * 1000
        how = "widens" if answer["widened"] else "joins" if answer["joined"] else "is"
        session.console.print(
            f"[bold red]killed[/] {escape(told(target, answer))} in {took:.0f} ms; this {how} rollback {answer['rollback_id']}"
        )
        say_standby(session, answer)
    return answer


def told(target: Target, answer: dict[str, Any]) -> str:
    """What was killed, a release with its flags."""
    return f"{target} ({', '.join(answer['flags'])})" if target.is_release else str(target)


def say_standby(session: Session, answer: dict[str, Any]) -> None:
    """Warn of a kill that only the primary has: a failover may lose it."""
    standby = answer.get("standby")
    if standby is not None and not standby["confirmed"]:
        session.console.print(
            "[yellow]only PostgreSQL's primary has it:[/] no word from the synchronous standby; after a failover, kill again"
        )


def reaches(goal: str) -> Any:
    """Whether a record has come as far as the goal; every goal but `contained` wants containment too."""
    field = GOAL_FIELDS[goal]

    def reached(record: Record) -> bool:
        done = record["state"] == "settled" if goal == "settled" else bool(record[field]) or record["state"] == "settled"
        return done and (goal == "drained" or record["contained_at"] is not None)

    return reached


def conclude(session: Session, answer: dict[str, Any], record: Record, goal: str) -> int:
    """Print how it stands and choose the exit code."""
    reached = bool(record) and reaches(goal)(record)
    contained = bool(record) and record["contained_at"] is not None
    if session.json:
        session.show_json({**answer, "reached": reached, "rollback": record or None})
    elif record:
        sum_up(session, record)
    else:
        session.console.print(f"killed; nothing was heard since: rescind watch {answer['rollback_id']}")
    if reached:
        return Exit.OK
    return Exit.CONTAINED_ONLY if contained else Exit.NOT_CONTAINED


def kill_directly(session: Session, target: Target, body: dict[str, Any]) -> int:
    """Call the SQL function on PostgreSQL itself, through the server package."""
    for entry in entry_points(group="rescind.direct", name="kill_release" if target.is_release else "kill"):
        answer = entry.load()(session.environment_of_direct, target.name, body)
        if session.json:
            session.show_json(answer)
        else:
            session.console.print(
                f"[bold red]killed[/] {escape(told(target, answer))} directly; rollback {answer['rollback_id']}"
            )
            say_standby(session, answer)
        return Exit.OK
    raise ConfigurationError(
        "--direct needs the server package on this machine (pip install rescind-server), or call "
        "rollbacks.kill_v3 with psql: it is the function that every path calls"
    )


COMMANDS = (kill,)
