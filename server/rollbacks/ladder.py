"""The recovery ladder of a service, the fastest rung first: flag, traffic, previous artifact, hotfix. Pure.

Each rung says whether it is there, whether it is safe, why, and the command. What is not known is null, and said. A rung is
recommended only where it is there and safe for all that is known.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from flagd.core.releases import Artifacts, Release
from server.rollbacks.reversibility import FlagFacts, Verdict

Name = Literal["flag", "traffic", "previous_artifact", "hotfix"]
RUNS = "the previous artifact runs on the schema as it is now"
BREAKS = "do not: the previous artifact does not survive the schema or the data as they are now"
NOT_KNOWN = "whether the previous artifact runs on the schema as it is now is not known"
DEPLOYMENT = "assumes a Kubernetes Deployment and container named like the service; the release may name another (`commands`)"


class Rung(Struct, frozen=True, kw_only=True):
    """One way out. `available`, `safe`: null is not known."""

    rung: Name
    available: bool | None
    safe: bool | None
    why: str
    command: str | None = None


def ladder(
    environment: str, service: str, name: str | None, release: Release, verdict: Verdict, flags: Sequence[FlagFacts],
    running: Mapping[str, int],
) -> list[Rung]:  # fmt: skip
    """The four rungs. `name` is the release's, null where no release names the service: `flags` are the service's own then."""
    artifacts = release.services.get(service, Artifacts())
    return [
        of_flags(environment, name, flags, verdict),
        of_traffic(artifacts, verdict, running),
        of_previous(service, artifacts, verdict),
        of_hotfix(release.tag, artifacts),
    ]


def recommended(rungs: Sequence[Rung]) -> Name | None:
    """The first that is there, safe and not taken yet."""
    return next((one.rung for one in rungs if one.available and one.safe and one.command), None)


def advice(verdict: Verdict, rungs: Sequence[Rung]) -> str:
    """What to do, in a sentence."""
    first = recommended(rungs)
    way = f"Begin with: {first.replace('_', ' ')}." if first else "No rung is known to be there and safe: ask who knows it."
    match verdict.previous_artifact_runs:
        case False:
            return f"Do not roll the code back: roll forward. {way}"
        case None:
            return f"Do not roll the code back before you know what its migrations did. {way}"
        case _:
            return f"The code may be rolled back. {way}"


def of_flags(environment: str, name: str | None, flags: Sequence[FlagFacts], verdict: Verdict) -> Rung:
    """Kill the flags: seconds, no deployment, and what was done under them is undone."""
    live = [one.key for one in flags if not one.archived and one.killed_by is None]
    if not live:
        done = [f"{one.key} is killed already: rollback {one.killed_by}" for one in flags if one.killed_by]
        return Rung(rung="flag", available=False, safe=True, why="; ".join(done) or "there is no flag to kill")
    where = f"-e {shlex.quote(environment)} --reason TEXT"
    if name is not None:
        command = f"rescind kill --release {shlex.quote(name)} {where}"
    else:
        command = "\n".join(f"rescind kill {shlex.quote(key)} {where}" for key in live)
    why = f"{', '.join(live)}: the artifact that runs goes back to its old path, no schema is touched"
    if verdict.previous_artifact_runs is False:
        why += "; look whether that path needs what the migrations took away"
    return Rung(rung="flag", available=True, safe=True, why=why, command=command)


def of_traffic(artifacts: Artifacts, verdict: Verdict, running: Mapping[str, int]) -> Rung:
    """Back to instances of the previous artifact that still run."""
    versions = ", ".join(f"{number} of version {version or '(none told)'}" for version, number in running.items())
    seen = f"now run: {versions}" if versions else "no instance is live"
    command = artifacts.commands.get("traffic")
    how = "" if command else "; nobody has said how its traffic is shifted (`commands.traffic` of the release)"
    available = False if command is None else len(running) > 1 or None
    if command and not available:
        seen += "; whether the previous artifact still runs is not known"
    return Rung(
        rung="traffic", available=available, safe=verdict.previous_artifact_runs, why=f"{safety(verdict)}; {seen}{how}",
        command=command,
    )  # fmt: skip


def of_previous(service: str, artifacts: Artifacts, verdict: Verdict) -> Rung:
    """The binary, not the source: what ran before, by its digest."""
    own = artifacts.commands.get("previous")
    if artifacts.previous is None:
        why = f"no previous artifact of {service} is named; rebuilding one from source would be an artifact that never ran"
        return Rung(rung="previous_artifact", available=False, safe=verdict.previous_artifact_runs, why=why)
    target, deployment = shlex.quote(artifacts.previous), shlex.quote(f"deployment/{service}")
    if "@" in artifacts.previous:
        command = f"kubectl set image {deployment} {shlex.quote(service)}={target}"
    else:
        command = f"kubectl rollout undo {deployment}"
    why = f"{safety(verdict)}; {artifacts.previous}" + ("" if own else f"; {DEPLOYMENT}")
    return Rung(rung="previous_artifact", available=True, safe=verdict.previous_artifact_runs, why=why, command=own or command)


def of_hotfix(tag: str | None, artifacts: Artifacts) -> Rung:
    """Forward: from the tag that runs, not from main, which holds what nobody has released."""
    own = artifacts.commands.get("hotfix")
    if tag is None:
        why = "the release names no tag: a branch from main would bring along what is not released yet"
        return Rung(rung="hotfix", available=bool(own), safe=True, why=why, command=own)
    why = "the smallest change on what runs; tag it, build and deploy it by the expedited gate, cherry-pick it back to main"
    command = f"git checkout -b {shlex.quote(f'hotfix/{tag}')} {shlex.quote(tag)}"
    return Rung(rung="hotfix", available=True, safe=True, why=why, command=own or command)


def safety(verdict: Verdict) -> str:
    """Why old code is safe, or is not."""
    return {True: RUNS, False: BREAKS, None: NOT_KNOWN}[verdict.previous_artifact_runs]
