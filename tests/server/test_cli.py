"""The command line against a real server: exit codes, one clear sentence for what went wrong, and the API's own JSON."""

from __future__ import annotations

import asyncio
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rescind.cli.pages import PAGE

from tests.server.conftest import Stoppable
from tests.server.processes import rescind
from tests.server.serving import P, Served, definition
from tests.waiting import until

FLAG = "checkout.new-flow"


class Line:
    """The command line, told where the server is."""

    def __init__(self, served: Served) -> None:
        self.variables = {"RESCIND_URL": served.url, "RESCIND_TOKEN": served.admin}

    async def __call__(self, *arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        done = await asyncio.to_thread(rescind, *arguments, cwd=cwd, **{**self.variables, **variables})
        assert "Traceback" not in done.stderr, done.stderr
        return done


@pytest.fixture
def line(served: Served) -> Line:
    return Line(served)


async def test_a_kill_that_reaches_what_it_waits_for_exits_0(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    done = await line("kill", FLAG, "--reason", "bad", "--incident", "INC-1", "--yes", "--wait", "settled")
    assert done.returncode == 0, done
    for word in ("killed", "fenced", "contained", "drained", "settled"):
        assert word in done.stdout, done.stdout
    assert (await served.ok("GET", f"{P}/flags/{FLAG}"))["killed"] is True


async def test_a_kill_is_decided_before_it_is_asked_for(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    begun = datetime.now(UTC)
    done = await line("kill", FLAG, "--reason", "bad", "--json")
    record = json.loads(done.stdout)["rollback"]
    assert begun < datetime.fromisoformat(record["decided_at"]) < datetime.fromisoformat(record["fenced_at"])


async def test_a_retry_says_what_it_did_not_reach(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    effects = [{"key": key, "kind": "mail", "flag": FLAG, "payload": {}, "variant": "on"} for key in "ab"]
    admitted = (await served.ok("POST", f"{P}/effects:admit", {"effects": effects}))["results"]
    reports = [{"effect_id": one["effect_id"], "token": one["token"], "outcome": "succeeded"} for one in admitted]
    await served.ok("POST", f"{P}/effects:report", {"reports": reports})
    killed = await line("kill", FLAG, "--reason", "bad", "--wait", "settled")
    assert killed.returncode == 10, killed
    assert "2 mail wait: nothing says how to undo it. Register its definition" in killed.stdout
    identity = (await served.ok("GET", "/v1/rollbacks", environment="production"))["rollbacks"][0]["id"]
    done = await line("retry", identity, "--effect", admitted[0]["effect_id"], "--reason", "there is a definition now")
    assert "1 still wait for a person" in done.stdout, done
    report = await line("report", identity)
    assert admitted[1]["effect_id"] in report.stdout, "its id is what `rescind skip` takes"
    assert f"rescind skip {identity} --effect {admitted[0]['effect_id'][:8]}" in report.stdout


async def test_every_refusal_says_what_to_do_next(served: Served, line: Line) -> None:  # P19
    await served.put_flag(FLAG)
    for arguments in (
        ("get", "no.such.flag.at.all"),
        ("-e", "prodction", "flags"),
        ("watch", "nonsense"),
        ("report", "01a2071f-6899-75e5-98b9-7f36bac62e78"),
        ("lift", FLAG, "--reason", "x"),
        ("kill", FLAG, "--reason", "x", "--no-preview", "--since", "yesterday"),
        ("set", '{"key": "d", "definition": {}}', "--reason", "new"),
    ):
        done = await line(*arguments)
        assert done.returncode != 0, arguments
        assert "next:" in done.stderr or "did you mean" in done.stderr, done


def test_help_names_every_verb_without_loading_what_other_packages_bring(tmp_path: Path) -> None:
    package = tmp_path / "broken-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[rescind.commands]\nbroken = not_there.at_all:verb\n")
    shown = rescind("--help", PYTHONPATH=str(tmp_path))
    assert shown.returncode == 0, shown
    for verb in ("kill", "serve", "dev", "broken"):
        assert verb in shown.stdout
    used = rescind("broken", "--anything", PYTHONPATH=str(tmp_path))
    assert used.returncode == 1, used
    assert "not_there" in used.stderr
    assert "next:" in used.stderr


async def test_json_is_the_apis_own(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    done = await line("kill", FLAG, "--reason", "bad", "--json", "--wait", "drained")
    answer = json.loads(done.stdout)
    assert {"rollback_id", "revision", "fenced_at", "rollback"} <= answer.keys()
    assert answer["rollback"]["drained_at"]


async def test_options_may_stand_before_or_after_the_verb(served: Served, line: Line) -> None:
    await served.put_flag(FLAG, "development")
    for arguments in (("--json", "-e", "development", "flags"), ("flags", "--json", "-e", "development")):
        done = await line(*arguments)
        assert [flag["key"] for flag in json.loads(done.stdout)["flags"]] == [FLAG]


async def test_a_kill_with_stragglers_exits_11_and_names_them(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    await served.ok("POST", f"{P}/heartbeats", {"instance": "checkout@host-7", "service": "checkout", "revision": [1, 1]})
    done = await line("kill", FLAG, "--reason", "bad", "--timeout", "1")
    assert done.returncode == 11, done
    assert "checkout@host-7" in done.stdout


async def test_a_kill_contained_and_not_settled_exits_10(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    done = await line("kill", FLAG, "--reason", "bad", "--compensate", "hold", "--wait", "settled", "--timeout", "20")
    assert done.returncode == 10, done
    assert "rescind resume" in done.stdout


async def test_a_refused_kill_exits_12_and_says_who_may(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    done = await line("kill", FLAG, "--reason", "bad", RESCIND_TOKEN=await served.token("read"))
    assert done.returncode == 12, done
    assert "kill" in done.stderr
    assert "next:" in done.stderr
    assert (await served.ok("GET", f"{P}/flags/{FLAG}"))["killed"] is False


async def test_an_unknown_flag_exits_13_with_the_nearest_one(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    for more in ((), ("--no-preview",)):
        done = await line("kill", "chekout.new-flow", "--reason", "bad", *more)
        assert (done.returncode, FLAG in done.stderr) == (13, True), done


async def test_an_unreachable_server_exits_20_with_the_ways_that_still_work(line: Line) -> None:
    done = await line("kill", FLAG, "--reason", "bad", RESCIND_URL="http://127.0.0.1:9")
    assert done.returncode == 20, done
    assert "--direct" in done.stderr


async def test_a_kill_whose_server_has_no_postgresql_exits_20_with_the_ways_that_still_work(stoppable: Stoppable) -> None:
    await stoppable.served.put_flag(FLAG)
    line = Line(stoppable.served)
    await asyncio.to_thread(stoppable.postgres.stop)
    for more in ((), ("--no-preview", "--json")):
        done = await line("kill", FLAG, "--reason", "bad", *more)
        assert done.returncode == 20, done
        assert "--direct" in done.stderr
        assert "--url" in done.stderr
    assert json.loads(done.stdout)["status"] == 503


async def test_every_instance_and_every_definition_is_counted_whatever_the_pages(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    number = PAGE + 20
    rows = [{"instance": f"pod-{n:04}", "service": "shop", "revision": [1, 0], "how": "push"} for n in range(number)]
    await asyncio.gather(*[served.ok("POST", f"{P}/heartbeats", row) for row in rows])
    assert f"{number} instances, {number} behind" in (await line("status")).stdout
    assert len(json.loads((await line("instances", "--json")).stdout)["instances"]) == number
    step = {"name": "a", "kind": "a", "key": "a:{n}", "compensation": {"executor": "worker"}}
    for n in range(number):
        await served.ok(
            "PUT", f"{P}/sagas/order/versions/{n}", {"saga": "order", "version": str(n), "flag": FLAG, "steps": [step]}
        )
    assert len(json.loads((await line("sagas", "--json")).stdout)["sagas"]) == number


async def test_standard_input_may_be_json_or_yaml(served: Served, line: Line) -> None:
    yaml = 'key: a.b\ndefinition:\n  state: ENABLED\n  variants: {"on": true, "off": false}\n  defaultVariant: "off"\n'
    assert (await line("set", "-", "--reason", "yaml", stdin=yaml)).returncode == 0
    flag = json.dumps({"key": "c.d", "definition": definition()})
    assert (await line("set", "-", "--reason", "json", stdin=flag)).returncode == 0
    assert {row["key"] for row in (await served.ok("GET", f"{P}/flags"))["flags"]} == {"a.b", "c.d"}


async def test_waiting_for_verified_is_refused_before_anything_is_killed(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    done = await line("kill", FLAG, "--reason", "bad", "--wait", "verified")
    assert done.returncode == 12, done
    assert (await served.ok("GET", f"{P}/flags/{FLAG}"))["killed"] is False


async def test_a_direct_kill_needs_no_server_and_binds_all(served: Served, line: Line, database_url: str) -> None:  # P5
    await served.put_flag(FLAG)
    arguments = ("kill", FLAG, "--reason", "the API is down", "--direct", "--url", "http://127.0.0.1:9")
    done = await line(*arguments, RESCIND_DATABASE_URL=database_url)
    assert done.returncode == 0, done
    effect = {"key": "a", "kind": "mail", "flag": FLAG, "payload": {}, "variant": "on"}
    (result,) = (await served.ok("POST", f"{P}/effects:admit", {"effects": [effect]}))["results"]
    assert result["outcome"] == "killed"
    unknown = await line("kill", "chekout.new-flow", "--reason", "x", "--direct", RESCIND_DATABASE_URL=database_url)
    assert (unknown.returncode, FLAG in unknown.stderr) == (13, True)


async def test_a_direct_kill_is_in_the_environment_that_the_variable_names(
    served: Served, line: Line, database_url: str
) -> None:
    for environment in ("development", "production"):
        await served.put_flag(FLAG, environment)
    direct = {"RESCIND_DATABASE_URL": database_url, "RESCIND_ENVIRONMENT": "development"}
    done = await line("kill", FLAG, "--reason", "bad", "--direct", **direct)
    assert done.returncode == 0, done
    killed = [
        (await served.ok("GET", f"/v1/environments/{environment}/flags/{FLAG}"))["killed"]
        for environment in ("development", "production")
    ]
    assert killed == [True, False]


async def test_flags_are_set_from_files_literals_and_standing_rules(served: Served, line: Line, tmp_path: Path) -> None:
    document = {"key": "a", "definition": definition()}
    (tmp_path / "flag.json").write_text(json.dumps(document))
    (tmp_path / "flag.yaml").write_text(
        "key: b\ndefinition: {state: ENABLED, variants: {on: true, off: false}, defaultVariant: on}\n"
    )
    for source in (str(tmp_path / "flag.json"), json.dumps({**document, "key": "c"})):
        assert (await line("set", source, "--reason", "new")).returncode == 0
    shown = await line("get", "a", "--json")
    assert json.loads(shown.stdout)["definition"] == definition()
    bad = await line("set", '{"key": "d", "definition": {"state": "maybe"}}', "--reason", "new")
    assert bad.returncode == 1
    assert "/flag/definition/state" in bad.stderr
    missing = await line("set", str(tmp_path / "nothing.json"), "--reason", "new")
    assert (missing.returncode, "nothing.json" in missing.stderr) == (2, True)
    owned = await line("set", json.dumps({**document, "owner": "ann"}), "--reason", "whose it is")
    assert "owner changed" in owned.stdout, owned
    bare = await line("set", json.dumps(document), "--reason", "again")
    assert "owner dropped" in bare.stdout, "what a whole replacement takes away is named"
    assert f"at revision {json.loads((await line('get', 'a', '--json')).stdout)['revision']}" in bare.stdout
    edited = await line("get", "a", "--rules")
    assert len(edited.stdout.splitlines()) > 5, "it is there to be edited"


async def test_hints_name_the_command_that_helps(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    assert "rescind environments" in (await line("-e", "zzzzzzzz", "flags")).stderr
    assert "--steps" in (await line("rollout", FLAG)).stderr
    done = await line("effects", "--status", "done")
    assert ("--status" in done.stderr, "in_doubt" in done.stderr) == (True, True), done
    wrong = await line("token", "create", "ci", "--scope", "evaluat", "--reason", "x")
    assert "evaluate, effects" in wrong.stderr, wrong
    step = {"kind": "charge", "class": "compensatable", "currency_code": "USD"}
    refund = {**step, "name": "a", "key": "a", "compensation": {"executor": "refund", "connection": "payments"}}
    mailed = {"executor": "email", "connection": "mail", "to": "a@b.example", "subject": "s", "body": "b"}
    mail = {**step, "name": "b", "kind": "mail", "key": "b", "compensation": mailed}
    saga = {"saga": "order", "version": "1", "flag": FLAG, "steps": [refund, mail]}
    unset = await line("sagas", "check", json.dumps(saga))
    for name in ("payments", "mail"):
        assert f"rescind connections set {name}" in unset.stderr, "every one that is missing is named at once"
    assert "quote it" in (await line("sagas", "check", json.dumps({**saga, "version": 1}))).stderr


async def test_sagas_are_checked_and_registered_from_yaml(line: Line, tmp_path: Path) -> None:
    good = tmp_path / "order.yaml"
    good.write_text(
        "saga: order\nversion: '1'\nflag: checkout.new-flow\nsteps:\n"
        "  - {name: call, kind: partner.call, key: 'call:{order_id}', class: irreversible}\n"
    )
    assert (await line("sagas", "check", str(good))).returncode == 0
    assert json.loads((await line("sagas", "--json")).stdout)["sagas"] == []
    assert (await line("sagas", "register", str(good))).returncode == 0
    assert [saga["name"] for saga in json.loads((await line("sagas", "--json")).stdout)["sagas"]] == ["order"]
    good.write_text(good.read_text().replace("irreversible", "sometimes").replace("partner.call", "''"))
    bad = await line("sagas", "check", str(good))
    assert bad.returncode == 1
    assert "/steps/0/class" in bad.stderr
    assert f"{good}:5: " in bad.stderr, "with the line of the file"
    schema = json.loads((await line("sagas", "schema")).stdout)
    assert schema["$defs"]["SagaDefinition"]["required"] == ["saga", "version", "flag", "steps"]


async def test_people_follow_a_rollback_from_recent_to_report(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    identity = (await served.kill(FLAG))["rollback_id"]
    assert identity in (await line("recent")).stdout
    watched = await line("watch", identity)
    assert (watched.returncode, "settled" in watched.stdout) == (0, True)
    report = await line("report", identity)
    assert (report.returncode, "it adds up" in report.stdout) == (0, True)
    assert (await line("report", identity, "--csv")).stdout.startswith("effect_id,kind,key")
    assert FLAG in (await line("status")).stdout
    assert (await line("lift", FLAG, "--reason", "mended")).returncode == 0
    assert "nothing is killed" in (await line("status")).stdout
    unknown = await line("report", "0192aaaa-0000-7000-8000-000000000000")
    assert (unknown.returncode, "rescind recent" in unknown.stderr) == (1, True)


async def test_tokens_are_made_and_revoked(line: Line) -> None:
    made = json.loads((await line("token", "create", "oncall", "--scope", "kill", "--reason", "rota", "--json")).stdout)
    assert made["environment"] == "production"
    assert (await line("flags", RESCIND_TOKEN=made["token"])).returncode == 12
    assert (await line("token", "revoke", made["id"], "--reason", "left")).returncode == 0
    assert made["id"] in (await line("token", "list")).stdout


async def test_without_settings_it_says_what_to_do(line: Line, tmp_path: Path) -> None:
    done = await line("status", cwd=tmp_path, RESCIND_URL="", RESCIND_TOKEN="")
    assert (done.returncode, "rescind dev" in done.stderr) == (2, True)


async def test_every_command_explains_itself(line: Line) -> None:
    names = (await line("--help")).stdout
    verbs = "kill lift status recent watch report preview flags get set sagas effects instances pause resume retry skip cancel"
    for verb in (*verbs.split(), "connections", "token", "work", "demo", "dev", "serve", "migrate"):
        assert f"\n  {verb} " in names, verb


async def test_a_rollback_is_named_by_its_beginning_and_a_settled_one_says_so(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    killed = await line("kill", FLAG, "--reason", "bad", "--wait", "settled")
    assert "no instances to contain" in killed.stdout, killed
    assert killed.stdout.count("settled") == 1, killed.stdout
    identity = (await served.ok("GET", "/v1/rollbacks", environment="production"))["rollbacks"][0]["id"]
    paused = await line("pause", identity[:13], "--reason", "late")
    assert "it has settled" in paused.stdout, paused
    shown = await line("report", identity[:13])
    assert "0 effects = 0" in shown.stdout, shown


async def test_what_waits_for_a_person_is_said_in_the_report_and_after_a_lift(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    effect = {"key": "a", "kind": "mail", "flag": FLAG, "payload": {}, "variant": "on"}
    admitted = (await served.ok("POST", f"{P}/effects:admit", {"effects": [effect]}))["results"][0]
    report = {"effect_id": admitted["effect_id"], "token": admitted["token"], "outcome": "succeeded"}
    await served.ok("POST", f"{P}/effects:report", {"reports": [report]})
    await line("kill", FLAG, "--reason", "bad", "--wait", "settled")
    identity = (await served.ok("GET", "/v1/rollbacks", environment="production"))["rollbacks"][0]["id"]
    shown = await line("report", identity)
    assert f"rescind skip {identity} --effect {admitted['effect_id']}" in shown.stdout, shown
    assert "1 effect = 1 waiting" in shown.stdout, shown
    lifted = await line("lift", FLAG, "--reason", "mended", "--force")
    assert f"rescind report {identity}" in lifted.stdout, lifted
    status = await line("status")
    assert "nothing is killed" in status.stdout
    assert identity in status.stdout, status


async def test_containment_is_never_earlier_than_the_fence(served: Served, line: Line) -> None:
    await served.put_flag(FLAG)
    done = await line("kill", FLAG, "--reason", "bad", "--json", "--wait", "contained")
    record = json.loads(done.stdout)["rollback"]
    assert record["contained_at"] >= record["fenced_at"]
    assert record["containment"]["contained_at"] == record["contained_at"]


async def test_a_compensation_that_keeps_failing_says_so_everywhere(  # P16
    served: Served, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    await served.put_flag(FLAG)
    stripe = json.dumps({"type": "stripe", "url": "http://127.0.0.1:9", "secret": "env:NO_SUCH_KEY", "granted": ["*"]})
    made = await line("connections", "set", "payments", stripe, "--reason", "test")
    assert "env:NO_SUCH_KEY is empty or missing" in made.stderr, made
    kind = {"kind": "charge", "version": "1", "class": "compensatable", "currency_code": "USD"}
    compensation = {"executor": "refund", "connection": "payments"}
    await served.ok("PUT", f"{P}/kinds/charge/versions/1", {**kind, "compensation": compensation})
    effect: dict[str, Any] = {"key": "a", "kind": "charge", "kind_version": "1", "flag": FLAG, "variant": "on"}
    effect["payload"] = {"amount_cents": 100}
    (one,) = (await served.ok("POST", f"{P}/effects:admit", {"effects": [effect]}))["results"]
    report = {"effect_id": one["effect_id"], "token": one["token"], "outcome": "succeeded", "result": {"id": "pi_1"}}
    await served.ok("POST", f"{P}/effects:report", {"reports": [report]})
    killed = await served.kill(FLAG)
    path = f"/v1/rollbacks/{killed['rollback_id']}"

    async def failing() -> Any:
        return (await served.ok("GET", path))["retrying"]

    (retry,) = await until(failing)
    assert (retry["kind"], retry["number"]) == ("charge", 1)
    assert "env:NO_SUCH_KEY" in retry["error"]
    watched = await line("watch", killed["rollback_id"], "--timeout", "1")
    assert "env:NO_SUCH_KEY" in watched.stdout
    assert "attempt" in watched.stdout
    shown = await line("report", killed["rollback_id"])
    assert "1 charge failing" in shown.stdout
    (effect_line,) = (await served.ok("GET", f"{path}/report"))["effects"]
    assert "env:NO_SUCH_KEY" in effect_line["cause"]["error"]
    assert "refund of charge failed at attempt 1" in caplog.text
    lifted = await line("lift", FLAG, "--reason", "mended", "--force")
    assert f"rollback {killed['rollback_id']} is still compensating" in lifted.stdout, lifted
    status = (await line("status")).stdout
    assert "lifted, and effects are still being undone" in status, status
    assert killed["rollback_id"] in status


async def test_breakers_are_listed_and_one_that_never_failed_is_named(line: Line) -> None:
    done = await line("breakers")
    assert (done.returncode, "no breaker is open" in done.stdout) == (0, True), done
    done = await line("breakers", "reset", "mail", "--reason", "the host is back")
    assert done.returncode != 0
    assert "no attempt of 'mail' has failed" in done.stderr, done
