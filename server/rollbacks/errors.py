"""Refusals of kill, lift and rollbacks, as problems (RFC 9457). Codes never change.

rbk          status  code
RS001        404     unknown_environment
RS002        404     unknown_flag
RS003        409     not_killed
RS004        409     killed_again
RS005        409     compensations_running
RS006        409     environment_in_recovery
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import asyncpg

from runtime.errors import Unavailable
from runtime.problem import Problem, suggest

UNKNOWN_ENVIRONMENT = "RS001"
UNKNOWN_FLAG = "RS002"
NOT_KILLED = "RS003"
KILLED_AGAIN = "RS004"
COMPENSATIONS_RUNNING = "RS005"
IN_RECOVERY = "RS006"

SHOWN_MAX = 3
ID_LENGTH_MIN = 4
ID_LENGTH_MAX = 64
ID_CUTOFF = 0.85


def state_of(error: asyncpg.PostgresError) -> str:
    """The SQLSTATE, or ''."""
    return getattr(error, "sqlstate", None) or ""


def problem_of(error: asyncpg.PostgresError, *, environment: str, flag: str) -> Problem | None:
    """The refusal behind an error of `kill_v3` or `lift_v2`; null for an error of another kind."""
    detail = getattr(error, "detail", None) or ""
    match state_of(error):
        case "RS003":
            return Problem(
                409, "not_killed", "Not killed", f"Flag {flag} in {environment} has no standing kill.",
                next_step=f"see `rescind recent --environment {environment}` for what was killed and lifted",
            )  # fmt: skip
        case "RS004":
            return Problem(
                409, "killed_again", "Killed again", f"Flag {flag} was killed again meanwhile: {detail} kill requests stand.",
                next_step=f"look at the newer kill, then lift with kill_count {detail}",
            )  # fmt: skip
        case "RS005":
            return Problem(
                409, "compensations_running", "Compensations are running",
                f"Rollback {detail} is compensating: lifting {flag} now would run the release and its undoing side by side.",
                next_step=f"wait (`rescind watch {detail}`), pause it, or lift with `--force`: what was begun is still undone",
            )  # fmt: skip
        case "55P03" | "57014":
            return None
    return None


def unknown_environment(name: str, known: Sequence[str]) -> Problem:
    """404 with the nearest name."""
    return Problem(
        404,
        "unknown_environment",
        "Unknown environment",
        f"There is no environment {name[:80]!r}.",
        suggestion=suggest(name, known),
        next_step=f"there are {', '.join(known[:10])}" if known else None,
    )


def unknown_flag(key: str, environment: str, known: Sequence[str]) -> Problem:
    """404 with the nearest key."""
    suggestion = suggest(key, known)
    return Problem(
        404, "unknown_flag", "Unknown flag", f"There is no flag {key[:255]!r} in {environment}.",
        suggestion=suggestion, next_step=None if suggestion else f"`rescind flags --environment {environment}` lists them",
    )  # fmt: skip


def unknown_rollback(text: str, latest: Sequence[str] = ()) -> Problem:
    """404 with the id that was probably meant, or else the latest ones: `latest` are those that may be told, newest first."""
    shown = ", ".join(latest[:SHOWN_MAX])
    return Problem(
        404,
        "unknown_rollback",
        "Unknown rollback",
        f"There is no rollback {text[:80]!r}.",
        suggestion=near_id(text, latest),
        next_step=f"`rescind recent` lists the latest{': ' if shown else ''}{shown}",
    )


def near_id(text: str, known: Sequence[str]) -> str | None:
    """The one id that begins so, or else the nearest by spelling: ids of one hour share their first third and are not near.

    >>> near_id("0192aaaa-0000-7000-8000-00000000000b", ["0192aaaa-0000-7000-8000-00000000000a"])
    '0192aaaa-0000-7000-8000-00000000000a'
    """
    word = text.strip().lower()[:ID_LENGTH_MAX]
    begun = [one for one in known if one.startswith(word)] if len(word) >= ID_LENGTH_MIN else []
    if len(begun) == 1:
        return begun[0]
    near = difflib.get_close_matches(word, known, n=1, cutoff=ID_CUTOFF)
    return near[0] if near else None


def unavailable(error: Unavailable) -> Problem:
    """503 that says that repeating is safe."""
    return Problem(
        503, "unavailable", "Not available", f"{error}. Nothing was killed by this request, or it was: repeating it is safe.",
        next_step="repeat the kill: it joins what stands", retry_after=1,
    )  # fmt: skip
