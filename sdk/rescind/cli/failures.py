"""Errors as one clear sentence with the next step, never a traceback."""

from __future__ import annotations

from rich.console import Console

from rescind.cli.codes import Exit
from rescind.cli.session import Session
from rescind.errors import ApiError, RescindError, Unreachable

UNAVAILABLE = 503
NEXT_STEPS = {
    401: "give a valid token with --token or RESCIND_TOKEN (an admin makes one with `rescind token create`)",
    403: "ask an admin for a token with that right (`rescind token create`)",
    404: "look at what there is: `rescind status`, `rescind flags`, `rescind recent`",
    409: "look at how it stands now (`rescind status`), then ask again",
    422: "mend what is named above; `--help` behind the command says what it takes",
    429: "wait a moment, then ask again",
    500: "try again; if it stays so, the server's log has the details",
    503: "try again in a moment; what was committed stands",
}
NEXT_STEPS_BY_CODE = {
    "unknown_environment": "see which there are: `rescind environments`",
    "no_rollout": "begin one: `rescind rollout FLAG VARIANT --steps 1,10,50,100 --every 1h --reason TEXT`",
}


def say(session: Session, error: RescindError) -> Exit:
    """Print the error for people, or as problem JSON with `--json`; return the exit code."""
    if session.json:
        session.show_json(problem_of(error))
    match error:
        case Unreachable():
            return _say_unreachable(session, error)
        case ApiError():
            return _say_refusal(session, error)
        case _:
            session.errors.print(f"[red]{_plain(str(error))}[/]")
            return Exit.USAGE


def say_not_killed(session: Session, error: RescindError) -> Exit:
    """`say`, for a kill: a server that cannot reach PostgreSQL is as good as unreachable, and what still works is said."""
    code = say(session, error)
    if not isinstance(error, ApiError) or error.status != UNAVAILABLE:
        return code
    out = session.errors
    out.print("The server answers and cannot carry a kill out. What still works:")
    out.print("  another server of the same installation, which may reach PostgreSQL: --url URL")
    _say_direct(out)
    out.print("  the same command again, as soon as PostgreSQL answers: a kill that stands already is joined")
    out.print("Instances keep evaluating their last known flags meanwhile; effects are not admitted without PostgreSQL.")
    return Exit.UNREACHABLE


def problem_of(error: RescindError) -> dict[str, object]:
    """The error in the form of the API's problems."""
    if isinstance(error, ApiError):
        return {
            "status": error.status, "code": error.code, "title": error.title, "detail": error.detail,
            "errors": error.errors, "suggestion": error.suggestion, "next_step": error.next_step,
        }  # fmt: skip
    code = "unreachable" if isinstance(error, Unreachable) else "configuration"
    return {"status": 0, "code": code, "detail": str(error)}


def _say_refusal(session: Session, error: ApiError) -> Exit:
    out = session.errors
    out.print(f"[red]{_plain(error.detail or error.title or error.code)}[/] [dim]({error.code})[/]")
    for fault in error.errors:
        if fault.detail == error.detail and len(error.errors) == 1:
            continue
        out.print(f"  {_plain(fault.pointer or '/')}  {_plain(fault.detail)}")
    if error.suggestion:
        out.print(f"did you mean [bold]{_plain(error.suggestion)}[/]?")
    step = error.next_step or (None if error.suggestion else next_step(error))
    if step:
        out.print(f"next: {_plain(step)}")
    if error.status in (401, 403) or error.code == "nothing_measures_health":
        return Exit.REFUSED
    return Exit.UNKNOWN_FLAG if error.code in ("unknown_flag", "unknown_release") else Exit.FAILED


def next_step(error: ApiError) -> str | None:
    """What to do about a refusal that says nothing of it."""
    return NEXT_STEPS_BY_CODE.get(error.code) or NEXT_STEPS.get(error.status)


def _say_unreachable(session: Session, error: Unreachable) -> Exit:
    out = session.errors
    out.print(f"[red]{_plain(str(error))}[/]")
    out.print("What still works:")
    out.print("  another server of the same installation: --url URL (any of them kills for all)")
    _say_direct(out)
    out.print("Instances keep evaluating their last known flags meanwhile; effects are not admitted without the server.")
    return Exit.UNREACHABLE


def _say_direct(out: Console) -> None:
    out.print("  PostgreSQL directly: rescind kill FLAG --reason TEXT --direct, with RESCIND_DATABASE_URL set")
    out.print("  or psql: SELECT * FROM rollbacks.kill_v3(...), the function that every path calls")


def _plain(text: str) -> str:
    """Text of others, not to be read as markup."""
    return text.replace("[", "\\[")
