"""How far a release can be taken back, and the ladder: both pure."""

from __future__ import annotations

from typing import Any

import pytest

from flagd.core.releases import Artifacts, Release, ReleaseMigration
from server.rollbacks.classing import given
from server.rollbacks.ladder import advice, ladder, recommended
from server.rollbacks.reversibility import FlagFacts, Verdict, judge
from server.rollbacks.statements.classes import Migration
from server.rollbacks.statements.judging import judge as classed

SHIPPED = {"checkout": Artifacts(artifact="new", previous="old")}
FLAG = FlagFacts(key="f", kind="release", reversibility="unknown")
WORST = FlagFacts(key="g", kind="release", reversibility="irreversible")


def verdict(*sql: str, flags: list[FlagFacts] | None = None, **fields: Any) -> Verdict:
    migrations = [Migration(name=str(number), sql=text) for number, text in enumerate(sql)]
    listed = [ReleaseMigration(name=one.name, sql=one.sql) for one in migrations]
    release = Release(**{"services": SHIPPED, "migrations": listed, **fields})
    return judge(release, classed(migrations), [FLAG] if flags is None else flags)


CASES: list[tuple[str, dict[str, Any], str, str, bool | None]] = [
    ("", {"services": {}}, "flag_only", "no", True),
    ("", {"services": {"checkout": Artifacts()}}, "flag_only", "no", True),
    ("", {"services": {}, "flags": []}, "redeploy_safe", "no", True),
    ("", {"services": {}, "flags": [FlagFacts(key="p", kind="permission", reversibility="")]}, "redeploy_safe", "no", True),
    ("", {}, "redeploy_safe", "no", True),
    ("ALTER TABLE a ADD b int", {}, "redeploy_safe", "no", True),
    ("ALTER TABLE a ADD b int; UPDATE a SET b = 1", {}, "redeploy_safe", "no", True),
    ("ALTER TABLE a DROP b", {}, "roll_forward_only", "yes", False),
    ("ALTER TABLE a RENAME b TO c", {"services": {}}, "roll_forward_only", "yes", False),
    ("DELETE FROM a", {}, "not_undoable", "yes", False),
    ("DELETE FROM a; ALTER TABLE a DROP b; SELECT f()", {}, "not_undoable", "yes", False),
    ("DO ''", {}, "unknown", "unknown", None),
    ("DO ''; ALTER TABLE a DROP b", {}, "roll_forward_only", "yes", False),
    ("ALTER TABEL", {}, "unknown", "unknown", None),
    ("", {"migrations": None}, "unknown", "unknown", None),
    ("", {"flags": [FLAG, WORST]}, "not_undoable", "no", True),
    ("", {"services": {"checkout": Artifacts(artifact="first")}}, "roll_forward_only", "no", True),
]


@pytest.mark.parametrize(("sql", "fields", "reversibility", "destructive", "runs"), CASES)
def test_the_reversibility_of_a_release(
    sql: str, fields: dict[str, Any], reversibility: str, destructive: str, runs: bool | None
) -> None:
    found = verdict(*([sql] if sql else []), **fields)
    assert (str(found.reversibility), found.destructive_migration, found.previous_artifact_runs) == (
        reversibility,
        destructive,
        runs,
    )
    assert found.reasons


@pytest.mark.parametrize(
    ("class_", "reversibility"),
    [
        ("additive", "redeploy_safe"),
        ("needs_backfill", "redeploy_safe"),
        ("destructive", "roll_forward_only"),
        ("unknown", "unknown"),
    ],
)
def test_a_class_that_was_given_counts_like_one_that_was_found(class_: str, reversibility: str) -> None:
    release = Release(services=SHIPPED, migrations=[ReleaseMigration(name="1", given_class=class_)])
    assert str(judge(release, [given("1", class_)], [FLAG]).reversibility) == reversibility


def test_the_reasons_name_each_statement_and_its_place() -> None:
    found = verdict("SELECT 1;\nALTER TABLE a DROP b", flags=[WORST])
    assert found.reasons[0].startswith("0:2: drop column a.b: ")
    assert found.reasons[-1] == "flag g says of itself that what is done under it cannot be undone"


def test_previous_artifacts_are_no_comfort_where_they_do_not_run() -> None:
    comfort = "what is not behind its flags is taken back by the previous artifacts alone"
    assert [comfort in verdict(sql).reasons for sql in ("SELECT 1", "DO ''", "ALTER TABLE a DROP b")] == [True, False, False]


def rungs(found: Verdict, *, flags: list[FlagFacts] | None = None, running: dict[str, int] | None = None, **own: Any) -> Any:
    release = Release(services={"checkout": Artifacts(**{"artifact": "a", "previous": "shop/c@sha256:b", **own})}, tag="v2")
    listed = ladder("production", "checkout", "r 1", release, found, [FLAG] if flags is None else flags, running or {})
    return {one.rung: one for one in listed}


def test_old_code_is_offered_only_where_it_is_known_to_run() -> None:
    for sql, safe in (("SELECT 1", True), ("ALTER TABLE a DROP b", False), ("DO ''", None)):
        found = rungs(verdict(sql))
        assert (found["traffic"].safe, found["previous_artifact"].safe) == (safe, safe)
        assert recommended([found["previous_artifact"], found["hotfix"]]) == ("previous_artifact" if safe else "hotfix")
    assert "do not" in rungs(verdict("ALTER TABLE a DROP b"))["previous_artifact"].why
    assert "not known" in rungs(verdict("DO ''"))["previous_artifact"].why


def test_a_killed_flag_is_not_offered_again() -> None:
    killed = FlagFacts(key="f", kind="release", reversibility="", killed_by="R")
    found = rungs(verdict(), flags=[killed])["flag"]
    assert (found.available, found.command, "killed already: rollback R" in found.why) == (False, None, True)


def test_traffic_is_there_where_the_team_says_how_and_two_versions_run() -> None:
    commands = {"traffic": "kubectl patch svc checkout ..."}
    assert rungs(verdict())["traffic"].available is False
    assert rungs(verdict(), commands=commands, running={"2": 1})["traffic"].available is None
    assert rungs(verdict(), commands=commands, running={"1": 1, "2": 1})["traffic"].available is True


def test_commands_are_the_teams_own_or_quoted_for_a_shell() -> None:
    own = {"previous": "helm rollback checkout", "hotfix": "make hotfix"}
    assert [rungs(verdict(), commands=own)[name].command for name in ("previous_artifact", "hotfix")] == [*own.values()]
    assert rungs(verdict())["flag"].command == "rescind kill --release 'r 1' -e production --reason TEXT"
    assert rungs(verdict(), previous="sha256:b")["previous_artifact"].command == "kubectl rollout undo deployment/checkout"
    assert rungs(verdict(), previous=None)["previous_artifact"].available is False


def test_where_no_rung_is_known_to_be_safe_none_is_recommended() -> None:
    found = ladder("production", "x", None, Release(), verdict(migrations=None, flags=[]), [], {})
    assert recommended(found) is None
    assert "ask who knows" in advice(verdict(migrations=None, flags=[]), found)
