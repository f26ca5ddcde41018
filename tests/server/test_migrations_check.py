"""`rescind migrations check`: the classes of migrations as CI asks for them, and our own migrations through it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import msgspec
import pytest

from runtime.errors import Unavailable
from server.rollbacks.classing import WAITING_MAX, Classing
from server.rollbacks.statements.classes import Finding, Migration
from server.rollbacks.statements.judging import judge
from tests.server.processes import rescind

ROOT = Path(__file__).resolve().parents[2]
DROP = "\nALTER TABLE orders DROP COLUMN note;\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "0001_pre_orders.sql").write_text("CREATE TABLE orders (id bigint, note varchar(10));")
    (tmp_path / "0002_pre_wider.sql").write_text("ALTER TABLE orders ALTER COLUMN note TYPE varchar(20);")
    (tmp_path / "0003_post_note.sql").write_text(DROP)
    return tmp_path


def check(folder: Path, *arguments: str) -> tuple[int, str]:
    done = rescind("migrations", "check", *arguments, cwd=folder)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def test_what_only_adds_passes_and_what_drops_passes_a_release_later(files: Path) -> None:
    code, told = check(files, "0001_pre_orders.sql", "0002_pre_wider.sql", "0003_post_note.sql")
    assert code == 0, told
    assert "3 statements in 3 files: all allowed" in told
    assert "0003_post_note.sql:2" in told


def test_what_drops_before_the_new_code_runs_is_named_with_its_line_and_its_reason(files: Path) -> None:
    (files / "V3__note.sql").write_text(DROP)
    code, told = check(files, "V3__note.sql")
    assert code == 1, told
    for word in ("V3__note.sql:2", "destructive", "drop_column", "orders.note", "in backups alone", "1 not allowed"):
        assert word in told
    assert check(files, "V3__note.sql", "--phase", "post")[0] == 0
    assert check(files, "V3__note.sql", "--allow", "destructive")[0] == 0
    assert check(files, "V3__note.sql", "--accept", "drop_column=./V3__note.sql")[0] == 0
    assert check(files, "V3__note.sql", "--accept", "drop_column=other.sql")[0] == 1


def test_what_is_not_known_passes_in_no_phase(files: Path) -> None:
    code, told = check(files, "0002_pre_wider.sql")
    assert (code, "type_not_known" in told) == (1, True), told
    (files / "0004_post_do.sql").write_text("DO $$ BEGIN END $$")
    assert check(files, "0004_post_do.sql")[0] == 1


def test_json_has_every_finding(files: Path) -> None:
    code, told = check(files, "--json", "0001_pre_orders.sql", "0003_post_note.sql")
    answer = json.loads(told)
    assert (code, answer["allowed"]) == (0, True)
    assert answer["files"] == {"0001_pre_orders.sql": "additive", "0003_post_note.sql": "destructive"}
    last = answer["findings"][-1]
    assert (last["class"], last["rule"], last["line"], last["phase"], last["allowed"]) == (
        "destructive",
        "drop_column",
        2,
        "post",
        True,
    )


def test_a_release_is_judged_as_one(files: Path) -> None:
    (files / "1.sql").write_text("CREATE TABLE a (b int)")
    (files / "2.sql").write_text("DROP TABLE a")
    assert check(files, "1.sql", "2.sql")[0] == 1
    assert check(files, "--one-release", "1.sql", "2.sql")[0] == 0


@pytest.mark.parametrize("arguments", [[], ["none.sql"], ["--accept", "nothing", "0001_pre_orders.sql"]])
def test_what_cannot_be_asked_is_a_usage_error(files: Path, arguments: list[str]) -> None:
    assert check(files, *arguments)[0] == 2


def test_our_own_migrations_pass_as_ci_asks_it() -> None:
    asked = (ROOT / ".ci" / "run").read_text().split("./run rescind migrations check", 1)[1].split("./*/migrations")[0]
    arguments = [word for word in asked.split() if word != "\\"]
    own = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("*/migrations/*.sql"))
    own += sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("*/*/migrations/*.sql"))
    code, told = check(ROOT, *arguments, *own)
    assert code == 0, told
    assert len(own) >= 22


MIGRATIONS = [Migration(name="1", sql="ALTER TABLE a DROP b"), Migration(name="2", sql="SELECT 1")]


async def test_a_server_judges_in_a_process_of_its_own() -> None:
    assert await Classing().judge(MIGRATIONS) == judge(MIGRATIONS)
    assert await Classing().judge([]) == []


@pytest.mark.parametrize(
    ("code", "word"),
    [("import os; os.abort()", "-6"), ("print('no')", "reading it failed"), ("input(); input()", "ended with 1")],
)
async def test_a_parser_that_fails_makes_every_migration_unknown(code: str, word: str) -> None:
    found = await Classing(executable=(sys.executable, "-c", code)).judge(MIGRATIONS)
    assert [(one.migration, str(one.statement_class), one.rule) for one in found] == [
        ("1", "unknown", "unreadable"),
        ("2", "unknown", "unreadable"),
    ]
    assert all(word in (one.note or "") for one in found), found


async def test_no_secret_reaches_the_parsers_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESCIND_DATABASE_URL", "postgresql://secret")
    code = "import os, sys; sys.exit(7 if any(name.startswith('RESCIND_') for name in os.environ) else 8)"
    found = await Classing(executable=(sys.executable, "-c", code)).judge(MIGRATIONS)
    assert "ended with 8" in (found[0].note or "")


async def test_more_releases_than_may_wait_are_told_to_come_again() -> None:
    classing = Classing()
    asked = await asyncio.gather(*(classing.judge(MIGRATIONS) for _ in range(WAITING_MAX + 1)), return_exceptions=True)
    assert [type(one) for one in asked if not isinstance(one, list)] == [Unavailable]


async def test_a_parser_that_never_ends_is_ended() -> None:
    silent = (sys.executable, "-c", "import time; time.sleep(1000)")
    found = await Classing(seconds_max=0.2, executable=silent).judge(MIGRATIONS)
    assert ["longer than 0.2 s" in (one.note or "") for one in found] == [True, True]


def test_findings_read_as_they_are_written() -> None:
    found = judge(MIGRATIONS)
    assert msgspec.json.decode(msgspec.json.encode(found), type=list[Finding]) == found
