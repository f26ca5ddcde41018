"""How far a release can be taken back, from its migrations' classes and its flags. Pure.

After the background's first question before any rollback: did this release run a destructive migration? Code reverts,
data does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from msgspec import Struct

from flagd.core.releases import Release
from server.rollbacks.statements.classes import Finding, StatementClass, Undoing

Answer = Literal["yes", "no", "unknown"]
SWITCHES = frozenset({"release", "experiment", "operational", "ops", "kill_switch"})
"""Kinds of flags whose off variant is the state before the release. Others give rights or values."""
IRREVERSIBLE = frozenset({"irreversible", "not_undoable"})
SHOWN_MAX = 20


class Reversibility(StrEnum):
    """The mildest way back that is safe, the easiest first."""

    FLAG_ONLY = "flag_only"
    """Its flags take all of it back: there is nothing to redeploy."""
    REDEPLOY_SAFE = "redeploy_safe"
    """The previous artifact runs on the schema as it is now."""
    UNKNOWN = "unknown"
    """Nobody can tell whether it does: treat it as roll forward only."""
    ROLL_FORWARD_ONLY = "roll_forward_only"
    """It does not, or is not there any more: the way out is a new artifact."""
    NOT_UNDOABLE = "not_undoable"
    """What was done stays done, whatever is deployed; forward as well."""


class FlagFacts(Struct, frozen=True, kw_only=True):
    """What is asked of one flag of a release."""

    key: str
    kind: str
    reversibility: str
    archived: bool = False
    killed_by: str | None = None
    """The rollback of the standing kill of everyone."""


class Verdict(Struct, frozen=True, kw_only=True):
    """The reversibility of a release, and why."""

    reversibility: Reversibility
    reasons: list[str]
    destructive_migration: Answer
    statements: list[Finding]
    """Those that are destructive or unknown: the evidence."""
    previous_artifact_runs: bool | None
    """On the schema and the data as they are now; null where that is not known."""


def judge(release: Release, findings: Sequence[Finding], flags: Sequence[FlagFacts]) -> Verdict:
    """The reversibility of a release whose migrations were judged so."""
    schema, schema_reasons = of_schema(release, findings)
    artifacts, artifact_reasons = of_artifacts(release)
    if artifacts is Reversibility.REDEPLOY_SAFE and schema is not Reversibility.FLAG_ONLY:
        artifact_reasons = []
    switches, flag_reasons = of_flags(flags)
    reached = max((schema, artifacts, switches), key=list(Reversibility).index)
    if reached is Reversibility.FLAG_ONLY and not any(one.kind in SWITCHES for one in flags):
        reached = Reversibility.REDEPLOY_SAFE
    return Verdict(
        reversibility=reached,
        reasons=[*schema_reasons, *artifact_reasons, *flag_reasons],
        destructive_migration=destructive(release, findings),
        statements=[one for one in findings if one.statement_class in (StatementClass.DESTRUCTIVE, StatementClass.UNKNOWN)],
        previous_artifact_runs={Reversibility.FLAG_ONLY: True, Reversibility.UNKNOWN: None}.get(schema, False),
    )


def destructive(release: Release, findings: Sequence[Finding]) -> Answer:
    """Whether the release ran a destructive migration; one that nobody can judge may be one."""
    classes = {one.statement_class for one in findings}
    if StatementClass.DESTRUCTIVE in classes:
        return "yes"
    return "unknown" if release.migrations is None or StatementClass.UNKNOWN in classes else "no"


def of_schema(release: Release, findings: Sequence[Finding]) -> tuple[Reversibility, list[str]]:
    """What its migrations leave of the way back."""
    if release.migrations is None:
        return Reversibility.UNKNOWN, ["nobody has said whether it ran migrations"]
    if not release.migrations:
        return Reversibility.FLAG_ONLY, ["it ran no migrations"]
    ways = {Undoing.NEVER: Reversibility.NOT_UNDOABLE, Undoing.FORWARD: Reversibility.ROLL_FORWARD_ONLY}
    hard = [one for one in findings if one.undoing in ways or one.undoing is Undoing.UNKNOWN]
    if not hard:
        return Reversibility.FLAG_ONLY, ["its migrations only add: the previous artifact runs on what they leave"]
    reached = max((ways.get(one.undoing, Reversibility.UNKNOWN) for one in hard), key=list(Reversibility).index)
    more = [f"and {len(hard) - SHOWN_MAX} statements more"] if len(hard) > SHOWN_MAX else []
    return reached, [*map(sentence, hard[:SHOWN_MAX]), *more]


def sentence(finding: Finding) -> str:
    """A statement and what it does, with its place."""
    place = f"{finding.migration}:{finding.line}" if finding.line else finding.migration
    about = f" {finding.about}" if finding.line and finding.about else ""
    note = f" ({finding.note})" if finding.note else ""
    return f"{place}: {finding.rule.replace('_', ' ')}{about}: {finding.reason}{note}"


def of_artifacts(release: Release) -> tuple[Reversibility, list[str]]:
    """Whether there is something to redeploy, and a need to."""
    shipped = {name: one for name, one in release.services.items() if one.artifact is not None}
    if not shipped:
        return Reversibility.FLAG_ONLY, ["it ships no artifact"]
    gone = [
        f"no previous artifact of {name} is named: nothing to redeploy" for name, one in shipped.items() if not one.previous
    ]
    if gone:
        return Reversibility.ROLL_FORWARD_ONLY, gone
    return Reversibility.REDEPLOY_SAFE, ["what is not behind its flags is taken back by the previous artifacts alone"]


def of_flags(flags: Sequence[FlagFacts]) -> tuple[Reversibility, list[str]]:
    """What its flags say of themselves."""
    if not flags:
        return Reversibility.REDEPLOY_SAFE, ["it has no flags"]
    others = [one for one in flags if one.kind not in SWITCHES]
    reasons = [f"flag {one.key} is of kind {one.kind}: its off variant need not be the state before" for one in others]
    hard = [one.key for one in flags if one.reversibility in IRREVERSIBLE]
    reasons += [f"flag {key} says of itself that what is done under it cannot be undone" for key in hard]
    forward = [one.key for one in flags if one.reversibility == Reversibility.ROLL_FORWARD_ONLY]
    reasons += [f"flag {key} says of itself: roll forward only" for key in forward]
    if hard:
        return Reversibility.NOT_UNDOABLE, reasons
    return (Reversibility.ROLL_FORWARD_ONLY if forward else Reversibility.FLAG_ONLY), reasons
