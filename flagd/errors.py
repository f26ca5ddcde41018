"""The refusals of this wing, as problems of HTTP (RFC 9457): each says what is wrong, and what to do.

Problem (runtime.problem)
├── 404 unknown_environment, unknown_flag, unknown_segment   with the name that was probably meant
├── 404 unknown_release, unknown_service
├── 404 unknown_schedule, no_rollout
├── 409 already_ended, rollout_running        what is asked for is over, or not over yet
├── 409 revision_mismatch                     someone else changed the environment first
├── 409 overtaken                             kills came in between, again and again
├── 412 flag_changed                          someone else changed the flag first
├── 409 key_was_used, killed, in_use          the change contradicts what is held
├── 409 undeclared                            live instances have not declared a flag that requires it
├── 409 environment_in_recovery               PostgreSQL is older than what was seen (P2)
└── 422 invalid                               every fault of the document at once
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from rescind import wire

from runtime.problem import Fault, Problem, suggest


class Code(StrEnum):
    """The `code` of a problem. Never changes once released."""

    UNKNOWN_ENVIRONMENT = "unknown_environment"
    UNKNOWN_FLAG = "unknown_flag"
    REVISION_MISMATCH = "revision_mismatch"
    OVERTAKEN = "overtaken"
    FLAG_CHANGED = "flag_changed"
    KEY_WAS_USED = "key_was_used"
    KILLED = "killed"
    IN_USE = "in_use"
    UNDECLARED = "undeclared"
    UNKNOWN_SEGMENT = "unknown_segment"
    UNKNOWN_RELEASE = "unknown_release"
    UNKNOWN_SERVICE = "unknown_service"
    UNKNOWN_SCHEDULE = "unknown_schedule"
    ALREADY_ENDED = "already_ended"
    ROLLOUT_RUNNING = "rollout_running"
    NO_ROLLOUT = "no_rollout"
    IN_RECOVERY = "environment_in_recovery"
    INVALID = "invalid"
    KILL_ELSEWHERE = "kill_has_its_own_endpoint"


_CONFLICTS = {
    Code.KEY_WAS_USED: "Choose another key.",
    Code.KILLED: "Lift the kill first, then make the change.",
    Code.IN_USE: "Change the flags that need it first, or in the same change.",
    Code.UNDECLARED: "`rescind instances --flag FLAG` shows who has declared it. Deploy code that calls client.declare() with "
    "its key, or stop the instances that are named; in an emergency an admin passes with --past-gate, and a reason.",
}


def unknown_environment(name: str, known: Iterable[str]) -> Problem:
    """404, with the environment that was probably meant."""
    return Problem(
        404,
        Code.UNKNOWN_ENVIRONMENT,
        "Unknown environment",
        f"There is no environment {name!r:.80}.",
        suggestion=suggest(name[:255], list(known)),
    )


def unknown_flag(key: str, known: Iterable[str]) -> Problem:
    """404, with the flag that was probably meant."""
    return Problem(
        404, Code.UNKNOWN_FLAG, "Unknown flag", f"There is no flag {key!r:.280}.", suggestion=suggest(key[:255], list(known))
    )


def unknown_flags(keys: Sequence[str], pointers: Sequence[str], known: Sequence[str]) -> Problem:
    """404 with each of them, and what was probably meant."""
    errors = []
    for key, at in zip(keys, pointers, strict=True):
        near = suggest(key[:255], known)
        hint = f"; did you mean `{near}`?" if near else ""
        errors.append(Fault(pointer=at, detail=f"there is no flag `{key}`{hint}", code=Code.UNKNOWN_FLAG))
    problem = unknown_flag(keys[0], known)
    problem.errors = tuple(errors)
    return problem


def unknown_release(name: str, known: Sequence[str]) -> Problem:
    """404, with the release that was probably meant."""
    return Problem(
        404,
        Code.UNKNOWN_RELEASE,
        "Unknown release",
        f"There is no release {name!r:.280}.",
        suggestion=suggest(name[:255], known),
        next_step="`rescind releases` lists them.",
    )


def unknown_service(name: str, known: Sequence[str]) -> Problem:
    """404, with the service that was probably meant."""
    return Problem(
        404,
        Code.UNKNOWN_SERVICE,
        "Unknown service",
        f"No release, no flag and no instance names the service {name!r:.280}.",
        suggestion=suggest(name[:255], known),
        next_step=f"There are {', '.join(known[:10])}." if known else "`rescind releases set` names services.",
    )


def unknown_segment(name: str, known: Iterable[str]) -> Problem:
    """404, with the segment that was probably meant."""
    suggestion = suggest(name[:255], list(known))
    return Problem(404, Code.UNKNOWN_SEGMENT, "Unknown segment", f"There is no segment {name!r:.280}.", suggestion=suggestion)


def unknown_schedule(identity: str) -> Problem:
    """404."""
    detail = f"There is no schedule {identity!r:.80}."
    return Problem(404, Code.UNKNOWN_SCHEDULE, "Unknown schedule", detail, next_step="`rescind schedule list` shows them.")


def already_ended(what: str, state: str) -> Problem:
    """409: it cannot be cancelled or stopped any more."""
    return Problem(409, Code.ALREADY_ENDED, "It has ended", f"The {what} is {state} already.")


def rollout_running(flag: str) -> Problem:
    """409: a flag has one rollout at a time."""
    return Problem(
        409,
        Code.ROLLOUT_RUNNING,
        "A rollout is running",
        f"Flag {flag!r} is being rolled out.",
        next_step=f"Stop it first: rescind rollout {flag} --stop --reason TEXT.",
    )


def no_rollout(flag: str) -> Problem:
    """404: the flag never had one."""
    return Problem(404, Code.NO_ROLLOUT, "No rollout", f"Flag {flag!r} has no rollout.")


def refused(faults: Sequence[wire.Fault]) -> Problem:
    """Every fault of a document at once: 422, or 409 where all that is wrong is what is held."""
    errors = [Fault(pointer=fault.pointer, detail=fault.detail, code=str(fault.code)) for fault in faults]
    codes = {fault.code for fault in faults}
    detail = faults[0].detail if len(faults) == 1 else f"{len(faults)} faults; the first: {faults[0].detail}"
    if len(codes) == 1 and (code := codes.pop()) in _CONFLICTS:
        step = _CONFLICTS[Code(code)]
        return Problem(409, code, "The change contradicts what is held", detail, errors=errors, next_step=step)
    return Problem(422, Code.INVALID, "The document has faults", detail, errors=errors)


def revision_mismatch(expected: wire.Revision, held: wire.Revision) -> Problem:
    """409: the environment is not at the revision that the change was made for."""
    return Problem(
        409,
        Code.REVISION_MISMATCH,
        "The environment has changed",
        f"The change was made for revision {expected}; the environment is at {held}.",
        next_step="Read the flags again, and repeat the change for the new revision.",
    )


def overtaken(environment: str) -> Problem:
    """409: whenever the change had been judged, a kill or a lift had come first."""
    return Problem(
        409,
        Code.OVERTAKEN,
        "Kills came first",
        f"Flags of environment {environment} are being killed or lifted one after another, and no edit holds those up.",
        next_step="Repeat the change as it is in a moment.",
    )


def flag_changed(key: str, expected: wire.Revision, held: wire.Revision | None) -> Problem:
    """412: the flag is not the one that `If-Match` speaks of."""
    found = "does not exist" if held is None else f"was changed at revision {held}"
    return Problem(
        412,
        Code.FLAG_CHANGED,
        "The flag has changed",
        f"If-Match asks for revision {expected}; flag {key!r} {found}.",
        next_step="Read the flag again, and repeat the change.",
    )


def in_recovery(environment: str, held: wire.Revision, seen: wire.Revision) -> Problem:
    """409: PostgreSQL was restored to an older state, so its next revision would be one that others hold already (P2); or a new
    generation was taken since, and nobody has said yet that the environment may go on."""
    return Problem(
        409,
        Code.IN_RECOVERY,
        "The environment is in recovery",
        f"PostgreSQL holds revision {held} of environment {environment}"
        + (f", but {seen} has been seen: it" if seen > held else ". It")
        + " was restored to an older state. Changes are refused until an admin says so; kills and evaluation go on.",
        next_step=f"Run `rescind doctor --restored -e {environment} --reason TEXT`: the generation then is above everything "
        "that was seen.",
    )
