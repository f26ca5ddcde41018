"""Flags on the command line: rules that people read, and imports that show what they change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.server.serving import P, Served, definition
from tests.server.test_cli import FLAG, Line

FLAG_FILE = f"""
key: {FLAG}
definition: {{state: ENABLED, variants: {{on: true, off: false}}, defaultVariant: off}}
rules:
  - name: beta countries
    when: [{{attribute: country, operator: in, value: [DE, NO]}}]
    serve: on
  - serve: {{split: {{on: 25, off: 75}}, by: account}}
"""


@pytest.fixture
def line(served: Served) -> Line:
    return Line(served)


async def test_rules_are_set_from_yaml_and_shown_as_a_table(served: Served, line: Line, tmp_path: Path) -> None:
    (tmp_path / "flag.yaml").write_text(FLAG_FILE)
    done = await line("set", str(tmp_path / "flag.yaml"), "--reason", "new")
    assert done.returncode == 0, done
    shown = (await line("get", FLAG)).stdout
    for words in ("beta countries", "country in DE, NO", "on 25 %, off 75 % by account", "default, off variant"):
        assert words in shown, shown
    assert json.loads((await line("get", FLAG, "--json")).stdout)["rules"][0]["serve"] == "on"
    await served.put_flag("raw", definition=definition({"if": [{"missing": ["plan"]}, "off"]}))
    assert '"missing"' in (await line("get", "raw")).stdout


async def test_an_import_is_shown_and_applied_when_it_is_confirmed(served: Served, line: Line, tmp_path: Path) -> None:
    await served.put_flag("moved")
    file = tmp_path / "flags.yaml"
    file.write_text(
        "- {key: moved, state: DISABLED, variants: {on: true, off: false}, defaultVariant: on}\n"
        "- {key: new, state: ENABLED, variants: {on: true, off: false}, defaultVariant: on}\n"
    )
    unasked = await line("import", str(file))
    assert unasked.returncode == 0
    for words in ("1 new", "1 changed", '"ENABLED" → "DISABLED"', "state"):
        assert words in unasked.stdout, unasked
    assert "--yes" in unasked.stderr
    assert [one["key"] for one in (await served.ok("GET", f"{P}/flags"))["flags"]] == ["moved"]
    done = await line("import", str(file), "--yes", "--reason", "a move", "--json")
    answer = json.loads(done.stdout)
    assert (answer["applied"], answer["flags"], [one["key"] for one in answer["added"]]) == (True, 2, ["new"])
    assert (await served.ok("GET", f"{P}/flags/moved"))["definition"]["state"] == "DISABLED"
    assert "nothing to change" in (await line("import", str(file), "--yes")).stdout


async def test_a_bad_file_shows_every_fault_and_changes_nothing(served: Served, line: Line, tmp_path: Path) -> None:
    file = tmp_path / "flags.json"
    file.write_text(json.dumps({"flags": {"good": definition(), "bad": {"state": "ON"}, "a b/c": definition()}}))
    done = await line("import", str(file), "--yes")
    assert done.returncode == 1
    for pointer in ("/flags/bad/state", "/flags/bad/variants", "/flags/a b~1c/key"):
        assert pointer in done.stderr, done
    assert (await served.ok("GET", f"{P}/flags"))["flags"] == []
    twice = tmp_path / "twice.yaml"
    twice.write_text("flags:\n  f: {}\n  f: {}\n")
    refused = await line("import", str(twice), "--yes")
    assert (refused.returncode, "'f' stands twice" in refused.stderr) == (2, True), refused


async def test_an_export_is_an_import_of_nothing_new(served: Served, line: Line, tmp_path: Path) -> None:
    await served.put_flag(FLAG)
    await served.kill(FLAG)
    file = tmp_path / "out.json"
    assert (await line("export", "--output", str(file))).returncode == 0
    assert json.loads(file.read_text())["flags"][FLAG] == definition()
    assert "nothing to change" in (await line("import", str(file), "--yes")).stdout
    served_now = json.loads((await line("export", "--effective")).stdout)
    assert served_now["flags"][FLAG]["defaultVariant"] == "off"
