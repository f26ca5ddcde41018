"""Releases on the command line: set from files, shown, killed with the exit codes of every kill, directly too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.server.serving import P, Served
from tests.server.test_cli import FLAG, Line

RELEASE = f"""
name: r1
tag: v2.4.0
services:
  checkout: {{artifact: "sha256:{"a" * 64}", previous: "sha256:{"b" * 64}"}}
migrations:
  - {{file: db/0042_drop_note.sql}}
  - {{name: 0043_more.sql, class: additive}}
flags: [{FLAG}, other]
"""


@pytest.fixture
async def line(served: Served) -> Line:
    for key in (FLAG, "other"):
        await served.put_flag(key, services=["checkout"])
    return Line(served)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "0042_drop_note.sql").write_text("ALTER TABLE orders DROP COLUMN note")
    (tmp_path / "release.yaml").write_text(RELEASE)
    return tmp_path / "release.yaml"


async def test_a_release_is_set_from_a_file_and_the_sql_beside_it(served: Served, line: Line, file: Path) -> None:
    done = await line("releases", "set", str(file), "--reason", "ship")
    assert done.returncode == 0, done
    for word in ("set release r1", "roll forward only", "0042_drop_note.sql:1", "drop_column", "orders.note", "destructive"):
        assert word in done.stdout, done.stdout
    assert "unchanged: release r1" in (await line("releases", "set", str(file), "--reason", "again")).stdout
    assert "r1" in (await line("releases")).stdout
    assert "v2.4.0" in (await line("releases", "r1")).stdout
    held = json.loads((await line("releases", "r1", "--json")).stdout)
    assert held == await served.ok("GET", f"{P}/releases/r1")
    assert [one["name"] for one in held["release"]["migrations"]] == ["0042_drop_note.sql", "0043_more.sql"]


async def test_migrations_may_be_given_beside_the_document(served: Served, line: Line, file: Path) -> None:
    sql = file.parent / "db" / "0042_drop_note.sql"
    done = await line("releases", "set", "{}", "--name", "r2", "--migration", str(sql), "--reason", "ship")
    assert done.returncode == 0, done
    assert (await served.ok("GET", f"{P}/releases/r2"))["destructive_migration"] == "yes"


async def test_what_is_wrong_with_a_release_is_said_with_its_line(line: Line, file: Path) -> None:
    file.write_text(RELEASE.replace("tag: v2.4.0", "tag: 'v 2'").replace("class: additive", "class: fine"))
    done = await line("releases", "set", str(file), "--reason", "ship")
    assert done.returncode == 1, done
    for place in (f"{file}:3:", f"{file}:8:"):
        assert place in done.stderr, done.stderr
    file.write_text(RELEASE.replace("0042_drop_note", "gone"))
    assert (await line("releases", "set", str(file), "--reason", "ship")).returncode == 2
    assert (await line("releases", "set", "{}", "--reason", "ship")).returncode == 2


async def test_a_release_is_killed_with_the_exit_codes_of_every_kill(served: Served, line: Line, file: Path) -> None:
    assert (await line("releases", "set", str(file), "--reason", "ship")).returncode == 0
    shown = await line("preview", "--release", "r1")
    for word in ("release r1 (v2.4.0): roll forward only", "destructive migration? yes", FLAG, "other"):
        assert word in shown.stdout, shown.stdout
    one = await line("preview", FLAG)
    assert "release r1" in one.stdout
    typo = await line("kill", "--release", "r11", "--reason", "bad", "--yes")
    assert (typo.returncode, "did you mean r1?" in typo.stderr) == (13, True), typo
    for arguments in (["kill", "--reason", "bad"], ["kill", FLAG, "--release", "r1", "--reason", "bad"]):
        assert (await line(*arguments)).returncode == 2
    refused = await line("kill", "--release", "r1", "--reason", "bad", RESCIND_TOKEN=await served.token(f"kill:{FLAG}"))
    assert refused.returncode == 12, refused
    done = await line("kill", "--release", "r1", "--reason", "bad", "--yes", "--wait", "settled")
    assert done.returncode == 0, done
    for word in ("release r1 (v2.4.0)", f"killed release r1 ({FLAG}, other) in", "settled"):
        assert word in done.stdout, done.stdout
    again = json.loads((await line("kill", "--release", "r1", "--reason", "bad", "--json")).stdout)
    assert (again["joined"], again["release"], again["flags"], again["reached"]) == (True, "r1", [FLAG, "other"], True)


async def test_a_release_is_killed_directly_where_no_server_answers(
    served: Served, line: Line, file: Path, database_url: str
) -> None:  # P5
    assert (await line("releases", "set", str(file), "--reason", "ship")).returncode == 0
    where = {"RESCIND_URL": "http://127.0.0.1:1", "RESCIND_DATABASE_URL": database_url}
    away = await line("kill", "--release", "r1", "--reason", "bad", "--yes", **where)
    assert away.returncode == 20, away
    done = await line("kill", "--release", "r1", "--reason", "bad", "--direct", "--json", **where)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["release"], answer["flags"]) == (0, "r1", [FLAG, "other"])
    killed = [(await served.ok("GET", f"{P}/flags/{key}"))["kills"][0]["rollback_id"] for key in (FLAG, "other")]
    assert killed == [answer["rollback_id"]] * 2
    typo = await line("kill", "--release", "r11", "--reason", "bad", "--direct", **where)
    assert (typo.returncode, "did you mean r1?" in typo.stderr) == (13, True), typo


async def test_the_way_out_is_shown_with_what_not_to_do_first(line: Line, file: Path) -> None:
    assert (await line("releases", "set", str(file), "--reason", "ship")).returncode == 0
    done = await line("recover", "checkout")
    first = done.stdout.splitlines()[0]
    assert "checkout in production: Do not roll the code back: roll forward. Begin with: flag." in first, done.stdout
    for word in (
        "> flag",
        "previous artifact: kubectl rollout undo deployment/checkout  # NOT SAFE",
        "hotfix: git checkout -b",
    ):
        assert word in done.stdout, done.stdout
    typo = await line("recover", "chekout")
    assert "did you mean checkout?" in typo.stderr
