"""`rescind explain` and `rescind moved`: why a context gets what it gets, and who moves when bucketing changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rescind.evaluation import moved

from tests.server.serving import P, Served, definition
from tests.server.test_cli import FLAG, Line

RULES = {
    "if": [
        {"and": ["beta countries", {"in": [{"var": "country"}, ["DE", "NO"]]}]},
        {"fractional": [["on", 50], ["off", 50]]},
        "off",
    ]
}


@pytest.fixture
def line(served: Served) -> Line:
    return Line(served)


async def test_an_explanation_is_a_tree_that_names_the_rule(served: Served, line: Line) -> None:
    await served.put_flag(FLAG, definition=definition(RULES))
    done = await line("explain", FLAG, "targetingKey=42", "country=DE")
    assert done.returncode == 0, done
    for words in ("rule 1", "beta countries", 'country is "DE"', "of 100", "v3", "/targeting/if/1/fractional"):
        assert words in done.stdout, done.stdout
    file = '{"country": "FR", "beta": true}'
    answer = json.loads((await line("explain", FLAG, "--context", file, "--json")).stdout)
    assert (answer["variant"], answer["pointer"]) == ("off", "/targeting/if/2")
    assert (await served.evaluate(FLAG, country="FR"))["variant"] == "off"


async def test_a_kill_is_named_and_a_wrong_question_is_refused(served: Served, line: Line) -> None:
    await served.put_flag(FLAG, definition=definition(RULES))
    await served.kill(FLAG)
    done = await line("explain", FLAG)
    for words in ("a kill: the off variant", "kill for everyone to off", "in its scope"):
        assert words in done.stdout, done.stdout
    assert (await line("explain", FLAG, "country")).returncode == 2
    unknown = await line("explain", "checkout.new-flw")
    assert (unknown.returncode, f"did you mean {FLAG}" in unknown.stderr) == (13, True), unknown


async def test_who_moves_between_the_generations_is_listed(served: Served, line: Line, tmp_path: Path) -> None:
    await served.put_flag(FLAG, definition=definition(RULES))
    users = [f"user-{number}" for number in range(60)]
    (file := tmp_path / "users").write_text("\n".join(users))
    movers = moved(FLAG, [50, 50], users)
    answer = json.loads((await line("moved", FLAG, str(file), "country=DE", "--json")).stdout)
    assert [one["targeting_key"] for one in answer["moved"]] == movers
    assert movers
    assert (answer["from"], answer["to"], answer["key_count"]) == ("v3", "v2", 60)
    for one in answer["moved"]:
        assert (await served.evaluate(FLAG, targetingKey=one["targeting_key"], country="DE"))["variant"] == one["from"]
    await served.ok("PUT", f"{P}/bucketing", {"generation": "v2", "reason": "as others do"})
    for one in answer["moved"]:
        assert (await served.evaluate(FLAG, targetingKey=one["targeting_key"], country="DE"))["variant"] == one["to"]
    shown = await line("moved", FLAG, str(file), "country=DE", "--to", "v3")
    assert f"{len(movers)} of 60 targeting keys" in shown.stdout, shown
    assert "0 of 60 targeting keys" in (await line("moved", FLAG, str(file), "country=FR")).stdout
    assert (await line("moved", "gone", str(file))).returncode == 13
    assert (await line("moved", FLAG, str(tmp_path / "nobody"))).returncode == 2


async def test_the_prerequisite_that_shuts_a_flag_is_named(line: Line, served: Served) -> None:  # P4, P7
    await served.put_flag(FLAG)
    needs = [{"flag": FLAG, "variant": "on"}]
    await served.ok(
        "PUT", f"{P}/flags/dependent", {"flag": {"definition": definition(), "prerequisites": needs}, "reason": "x"}
    )
    await served.kill(FLAG)
    shown = await line("explain", "dependent")
    assert f"decided by a prerequisite that does not hold: needs {FLAG} to serve on: the off variant" in shown.stdout, shown
    assert "no targeting" not in shown.stdout
