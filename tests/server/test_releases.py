"""Releases over HTTP: put whole or refused whole, judged, killed as one, and the way out of one (P1, P19, P20)."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from runtime.postgres import Postgres
from tests.server.serving import P, Served
from tests.waiting import until

FLAG, OTHER = "checkout.new-flow", "checkout.new-price"
NEW, OLD = "shop/checkout@sha256:" + "a" * 64, "shop/checkout@sha256:" + "b" * 64
DROP = {"name": "0042_drop_note.sql", "sql": "-- contract\nALTER TABLE orders DROP COLUMN note;"}
ADD = {"name": "0042_add_note.sql", "sql": "ALTER TABLE orders ADD COLUMN note text"}


def release(**fields: Any) -> dict[str, Any]:
    services = {"checkout": {"artifact": NEW, "previous": OLD}}
    return {"tag": "v2.4.0", "services": services, "migrations": [ADD], "flags": [FLAG], **fields}


async def put(served: Served, name: str = "v2.4.0", **fields: Any) -> Any:
    return await served.ok("PUT", f"{P}/releases/{name}", {"release": release(**fields), "reason": "ship"})


@pytest.fixture
async def flags(served: Served) -> Served:
    for key in (FLAG, OTHER):
        await served.put_flag(key, services=["checkout"])
    return served


async def audited(pg: Postgres, action: str) -> list[dict[str, Any]]:
    async with pg.connection() as connection:
        return [
            dict(row) for row in await connection.fetch("SELECT * FROM runtime.audit WHERE action = $1 ORDER BY id", action)
        ]


async def test_a_release_is_put_judged_and_told(flags: Served) -> None:
    answer = await flags.http.put(f"{P}/releases/v2.4.0", json={"release": release(), "reason": "ship"})
    assert answer.status_code == 201
    body = answer.json()
    assert (body["reversibility"], body["destructive_migration"], body["previous_artifact_runs"]) == (
        "redeploy_safe",
        "no",
        True,
    )
    assert [(one["migration"], one["class"], one["line"]) for one in body["findings"]] == [("0042_add_note.sql", "additive", 1)]
    held = await flags.ok("GET", f"{P}/releases/v2.4.0")
    assert held["release"]["services"]["checkout"] == {"artifact": NEW, "previous": OLD, "commands": {}}
    assert held["release"]["migrations"][0] == {**ADD, "class": None}
    assert body == {**held, "changed": True}


async def test_the_same_release_once_more_changes_nothing(flags: Served, pg: Postgres) -> None:  # P20
    first = await put(flags)
    again = await flags.http.put(f"{P}/releases/v2.4.0", json={"release": release(), "reason": "the pipeline ran again"})
    assert (again.status_code, again.json()) == (200, {**first, "changed": False})
    assert len(await audited(pg, "release.put")) == 1
    assert (await put(flags, migrations=[DROP]))["changed"] is True
    entries = await audited(pg, "release.put")
    assert [(one["object"], one["actor"], one["reason"]) for one in entries] == [("v2.4.0", "admin", "ship")] * 2
    assert entries[1]["detail"]["before"] == entries[0]["detail"]["digest"] != entries[1]["detail"]["digest"]


async def test_every_fault_is_said_at_once_with_its_place(flags: Served) -> None:
    wrong = {
        "tag": "v 1",
        "services": {
            "a/b": {"artifact": "latest"},
            "checkout": {"artifact": NEW, "previous": NEW, "commands": {"trafic": "x"}},
        },
        "migrations": [{"name": "1", "sql": "x", "class": "additive"}, {"sql": "SELECT 1"}, {"name": "3", "class": "fine"}],
        "flags": [FLAG, FLAG, 3],
        "deployed_at": "yesterday",
        "artefacts": {},
    }
    answer = await flags.http.put(f"{P}/releases/x", json={"release": wrong, "reason": 3, "raeson": "x"})
    assert answer.status_code == 422
    assert {one["pointer"] for one in answer.json()["errors"]} == {
        "/raeson", "/reason", "/release/artefacts", "/release/tag", "/release/services/a~1b", "/release/services/a~1b/artifact",
        "/release/services/checkout/previous", "/release/services/checkout/commands/trafic", "/release/migrations/0",
        "/release/migrations/1/name", "/release/migrations/2/class", "/release/flags/1", "/release/flags/2",
        "/release/deployed_at",
    }  # fmt: skip
    assert (await flags.ok("GET", f"{P}/releases"))["releases"] == []


@pytest.mark.parametrize("body", [{}, {"release": []}, {"release": {"services": []}}, {"release": {"flags": ["x"] * 65}}, []])
async def test_what_is_no_release_is_refused(flags: Served, body: Any) -> None:
    assert (await flags.http.put(f"{P}/releases/x", json=body)).status_code == 422


async def test_more_sql_than_is_read_is_refused_with_the_way_round(flags: Served) -> None:
    long = {"release": {"migrations": [{"name": "1", "sql": " " * 600_000}, {"name": "2", "sql": " " * 600_000}]}}
    answer = await flags.http.put(f"{P}/releases/x", json=long)
    assert (answer.status_code, "give `class`" in answer.text) == (422, True)


async def test_flags_that_there_are_not_are_404_each_with_the_nearest(flags: Served) -> None:
    answer = await flags.http.put(f"{P}/releases/x", json={"release": {"flags": [FLAG, "chekout.new-flow", "zzz"]}})
    body = answer.json()
    assert (answer.status_code, body["code"], body["suggestion"]) == (404, "unknown_flag", FLAG)
    assert [one["pointer"] for one in body["errors"]] == ["/release/flags/1", "/release/flags/2"]
    assert FLAG in body["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("method", "path", "code", "suggestion"),
    [
        ("GET", f"{P}/releases/v2.4.O", "unknown_release", "v2.4.0"),
        ("POST", f"{P}/releases/v2.4.O/kill", "unknown_release", "v2.4.0"),
        ("GET", f"{P}/releases/v2.4.O/kill-preview", "unknown_release", "v2.4.0"),
        ("GET", f"{P}/services/chekout/recovery", "unknown_service", "checkout"),
        ("GET", f"{P}/services/checkout/recovery?release=v2.4.O", "unknown_release", "v2.4.0"),
        ("GET", f"{P}/services/chekout/recovery?release=v2.4.0", "unknown_service", "checkout"),
        ("GET", "/v1/environments/prodution/releases", "unknown_environment", "production"),
        ("PUT", "/v1/environments/prodution/releases/x", "unknown_environment", "production"),
        ("GET", "/v1/environments/prodution/services/checkout/recovery", "unknown_environment", "production"),
    ],
)
async def test_an_unknown_name_is_404_with_the_nearest_one(
    flags: Served, method: str, path: str, code: str, suggestion: str
) -> None:
    await put(flags)
    body = {"POST": {"reason": "x"}, "PUT": {"release": {}}}.get(method)
    answer = await flags.http.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"], answer.json().get("suggestion")) == (404, code, suggestion), answer.text


async def test_releases_are_listed_the_last_deployed_first_and_in_pages(flags: Served) -> None:
    for day, name in ((3, "c"), (1, "a"), (2, "b")):
        await put(flags, name, deployed_at=f"2026-11-0{day}T03:00:00Z", services={} if name == "b" else release()["services"])
    page = await flags.ok("GET", f"{P}/releases", limit=2)
    assert ([one["name"] for one in page["releases"]], page["next"]) == (["c", "b"], "b")
    rest = await flags.ok("GET", f"{P}/releases", limit=2, after="b")
    assert ([one["name"] for one in rest["releases"]], rest["next"]) == (["a"], None)
    assert [one["name"] for one in (await flags.ok("GET", f"{P}/releases", service="checkout"))["releases"]] == ["c", "a"]
    assert (await flags.ok("GET", f"{P}/releases", flag=OTHER))["releases"] == []


async def test_a_class_that_ci_gave_stands_for_a_migration_whose_text_is_not_sent(flags: Served) -> None:
    given = [{"name": "1", "class": "additive"}, {"name": "2", "sql": "SELECT 1"}, {"name": "3", "class": "destructive"}]
    body = await put(flags, migrations=given)
    assert [(one["migration"], one["rule"], one["class"]) for one in body["findings"]] == [
        ("1", "given", "additive"), ("2", "select", "additive"), ("3", "given", "destructive"),
    ]  # fmt: skip
    assert (body["reversibility"], body["destructive_migration"]) == ("roll_forward_only", "yes")


async def test_a_kill_of_a_release_is_one_revision_and_one_rollback(flags: Served, pg: Postgres) -> None:  # P1, P20
    await put(flags, flags=[FLAG, OTHER])
    answer = await flags.http.post(f"{P}/releases/v2.4.0/kill", json={"reason": "double charges", "incident": "INC-1"})
    body = answer.json()
    assert (answer.status_code, body["release"], body["flags"], body["joined"]) == (202, "v2.4.0", [FLAG, OTHER], False)
    for key in (FLAG, OTHER):
        killed = await flags.ok("GET", f"{P}/flags/{key}")
        assert (killed["killed"], killed["revision"]) == (True, body["revision"])
        assert [one["rollback_id"] for one in killed["kills"]] == [body["rollback_id"]]
    found = await flags.settled(body)
    assert sorted(one["flag"] for one in found["flags"]) == sorted([FLAG, OTHER])
    (entry,) = await audited(pg, "release.kill")
    assert (entry["object"], entry["detail"]["rollback_id"], entry["detail"]["flags"]) == (
        "v2.4.0",
        body["rollback_id"],
        [FLAG, OTHER],
    )
    again = await flags.ok("POST", f"{P}/releases/v2.4.0/kill", {"reason": "again"})
    assert (again["joined"], again["rollback_id"]) == (True, body["rollback_id"])


async def test_a_release_of_which_a_flag_is_killed_and_one_archived_is_killed_all_the_same(flags: Served) -> None:  # P19
    await flags.put_flag("old")
    await put(flags, flags=[FLAG, OTHER, "old"])
    await flags.ok("DELETE", f"{P}/flags/old", {"reason": "done"})
    earlier = await flags.kill(FLAG)
    body = await flags.ok("POST", f"{P}/releases/v2.4.0/kill", {"reason": "bad"})
    assert (body["joined"], body["rollback_id"] != earlier["rollback_id"]) == (False, True)

    async def off() -> bool:
        return [(await flags.evaluate(key)).get("value") for key in (FLAG, OTHER)] == [False, False]

    await until(off)


async def test_a_release_without_flags_has_nothing_to_kill_and_says_where_to_look(flags: Served) -> None:
    await put(flags, flags=[])
    answer = await flags.http.post(f"{P}/releases/v2.4.0/kill", json={"reason": "bad"})
    assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_kill")
    assert "rescind recover checkout" in answer.json()["next_step"]


async def test_who_may_do_what_with_a_release(flags: Served) -> None:  # P19
    await put(flags, flags=[FLAG, OTHER])

    async def status(scope: str, method: str, path: str, body: Any = None) -> int:
        async with flags.client(await flags.token(scope)) as client:
            answer: httpx.Response = await client.request(method, f"{P}{path}", json=body)
            return answer.status_code

    again = {"release": release(flags=[FLAG, OTHER]), "reason": "ship"}
    scopes = ("release", "release:v2.4.0", "release:v1", "read")
    assert [await status(scope, "PUT", "/releases/v2.4.0", again) for scope in scopes] == [200, 200, 403, 403]
    assert [await status(scope, "GET", "/releases/v2.4.0") for scope in ("read", "effects")] == [200, 403]
    sights = ("/releases/v2.4.0/kill-preview", "/services/checkout/recovery")
    for path in sights:
        assert [await status(scope, "GET", path) for scope in ("read", f"kill:{FLAG}", "evaluate")] == [200, 200, 403]
    kill = {"reason": "bad"}
    scopes = ("read", f"kill:{FLAG}", "release")
    assert [await status(scope, "POST", "/releases/v2.4.0/kill", kill) for scope in scopes] == [403, 403, 403]
    assert (await flags.ok("GET", f"{P}/flags/{FLAG}"))["killed"] is False
    assert await status("kill", "POST", "/releases/v2.4.0/kill", kill) == 202


async def test_the_preview_of_a_kill_names_the_release_and_its_reversibility(flags: Served) -> None:
    assert (await flags.ok("GET", f"{P}/flags/{FLAG}/kill-preview"))["release"] is None
    await put(flags, "v2.3.0", deployed_at="2026-11-01T03:00:00Z")
    await put(flags, migrations=[DROP], deployed_at="2026-11-02T03:00:00Z", flags=[FLAG, OTHER])
    found = (await flags.ok("GET", f"{P}/flags/{FLAG}/kill-preview"))["release"]
    assert (found["name"], found["tag"], found["reversibility"], found["destructive_migration"]) == (
        "v2.4.0", "v2.4.0", "roll_forward_only", "yes",
    )  # fmt: skip
    assert "0042_drop_note.sql:2: drop column orders.note" in found["reasons"][0]
    whole = await flags.ok("GET", f"{P}/releases/v2.4.0/kill-preview")
    assert (whole["release"], [one["flag"] for one in whole["flags"]], whole["unknown"]) == (found, [FLAG, OTHER], [])


async def test_the_way_out_of_a_release_that_only_added_is_its_flag_then_the_previous_artifact(flags: Served) -> None:
    await put(flags)
    found = await flags.ok("GET", f"{P}/services/checkout/recovery")
    assert (found["destructive_migration"], found["recommended"], found["release"]["name"]) == ("no", "flag", "v2.4.0")
    rungs = {one["rung"]: one for one in found["ladder"]}
    assert [*rungs] == ["flag", "traffic", "previous_artifact", "hotfix"]
    assert [(one["available"], one["safe"]) for one in rungs.values()] == [
        (True, True),
        (False, True),
        (True, True),
        (True, True),
    ]
    assert rungs["flag"]["command"] == "rescind kill --release v2.4.0 -e production --reason TEXT"
    assert rungs["previous_artifact"]["command"] == f"kubectl set image deployment/checkout checkout={OLD}"
    assert rungs["hotfix"]["command"] == "git checkout -b hotfix/v2.4.0 v2.4.0"
    await flags.ok("POST", f"{P}/releases/v2.4.0/kill", {"reason": "bad"})
    after = await flags.ok("GET", f"{P}/services/checkout/recovery")
    assert (after["recommended"], after["ladder"][0]["available"]) == ("previous_artifact", False)


async def test_the_way_out_of_a_release_that_dropped_a_column_is_forward(flags: Served) -> None:
    await put(flags, migrations=[DROP], flags=[])
    found = await flags.ok("GET", f"{P}/services/checkout/recovery")
    assert (found["destructive_migration"], found["recommended"]) == ("yes", "hotfix")
    assert found["advice"].startswith("Do not roll the code back: roll forward.")
    assert [(one["available"], one["safe"]) for one in found["ladder"]] == [
        (False, True), (False, False), (True, False), (True, True),
    ]  # fmt: skip
    assert [(one["rule"], one["line"]) for one in found["statements"]] == [("drop_column", 2)]


async def test_what_nobody_has_said_is_not_known(flags: Served) -> None:
    found = await flags.ok("GET", f"{P}/services/checkout/recovery")
    assert (found["release"], found["destructive_migration"], found["recommended"]) == (None, "unknown", "flag")
    assert f"rescind kill {FLAG} " in found["ladder"][0]["command"]
    assert any("which release" in one for one in found["unknown"])
    without = release()
    del without["migrations"]
    await flags.ok("PUT", f"{P}/releases/v2.4.0", {"release": without, "reason": "ship"})
    found = await flags.ok("GET", f"{P}/services/checkout/recovery")
    assert (found["destructive_migration"], found["release"]["reversibility"]) == ("unknown", "unknown")
    assert [one["safe"] for one in found["ladder"]] == [True, None, None, True]
    assert found["advice"].startswith("Do not roll the code back before you know")


async def test_the_versions_that_run_are_told(flags: Served) -> None:
    await put(flags)
    for number, version in enumerate(("2.4.0", "2.3.0", "2.4.0")):
        beat = {"instance": f"i{number}", "service": "checkout", "revision": [1, 1], "service_version": version}
        await flags.ok("POST", f"{P}/heartbeats", beat)
    found = await flags.ok("GET", f"{P}/services/checkout/recovery")
    assert found["running"] == {"2.3.0": 1, "2.4.0": 2}
    assert any("the fleet is mixed" in one for one in found["unknown"])


async def test_an_earlier_release_may_be_asked_for(flags: Served) -> None:
    await put(flags, "v1", migrations=[DROP], deployed_at="2026-11-01T03:00:00Z")
    await put(flags, "v2", migrations=[], deployed_at="2026-11-02T03:00:00Z")
    assert (await flags.ok("GET", f"{P}/services/checkout/recovery"))["release"]["name"] == "v2"
    assert (await flags.ok("GET", f"{P}/services/checkout/recovery", release="v1"))["destructive_migration"] == "yes"
