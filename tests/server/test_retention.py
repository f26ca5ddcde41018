"""History that has gone, as people see it: the preview and the report say so, and the sums of a rollback stay true (P12)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from server.rollbacks.record import STATES
from tests.sagas.retention.world import History
from tests.server.serving import P, Served
from tests.server.test_cli import Line
from tests.server.test_effects import FLAG, PARCEL, admit, effect, succeed


@pytest.fixture
async def shop(served: Served) -> History:
    """A flag, and a kind that can only be reported."""
    await served.put_flag(FLAG)
    await served.ok("PUT", f"{P}/kinds/parcel.sent/versions/1", {**PARCEL, "retention_days": 60})
    return History(served.parts.pg)


async def test_a_kill_is_told_up_to_when_history_has_gone(served: Served, shop: History) -> None:
    await succeed(served, *await admit(served, effect("a", "parcel.sent"), effect("b", "parcel.sent")))
    await shop.age()
    await shop.drop()
    await succeed(served, *await admit(served, effect("c", "parcel.sent")))
    found = await served.ok("GET", f"{P}/flags/{FLAG}/kill-preview")
    assert found["effects"]["parcel.sent"]["effects"] == 1
    assert found["history_gone_until"] < (datetime.now(UTC) - timedelta(days=99)).isoformat()
    assert any("up to 2 effects" in sentence and "gone by retention" in sentence for sentence in found["unknown"])
    young = await served.ok("GET", f"{P}/flags/{FLAG}/kill-preview", since=(datetime.now(UTC) - timedelta(days=9)).isoformat())
    assert young["history_gone_until"] is None
    assert not any("retention" in sentence for sentence in young["unknown"])
    settled = await served.settled(await served.kill(FLAG))
    (flag,) = settled["flags"]
    assert (flag["history_gone_until"], flag["history_gone_count"]) == (found["history_gone_until"], 2)
    assert settled["counts"]["parcel.sent"]["admitted"] == 1


async def test_sums_stay_true_when_the_history_of_a_rollback_goes(served: Served, shop: History) -> None:
    await succeed(served, *await admit(served, effect("a", "parcel.sent"), effect("b", "parcel.sent")))
    killed = await served.kill(FLAG)
    before = (await served.settled(killed))["counts"]
    await shop.age()
    await shop.drop()
    path = f"/v1/rollbacks/{killed['rollback_id']}"
    report = await served.ok("GET", f"{path}/report")
    assert report["rollback"]["counts"] == before
    assert (report["rollback"]["gone"], report["effects"]) == (2, [])
    assert report["sum"]["adds_up"]
    assert report["sum"]["set"] == sum(report["sum"][state] for state in STATES) == 2
    (flag,) = report["rollback"]["flags"]
    assert flag["history_gone_until"] is None, "nothing had gone when its set was closed"


async def test_retention_is_shown(served: Served, shop: History) -> None:
    line = Line(served)
    shown = await served.ok("GET", f"{P}/retention")
    assert (shown["history_days"], shown["keys_days"], shown["horizons"]) == (None, None, [])
    assert {sweep["what"] for sweep in shown["sweeps"]} == {"effects", "instances", "instance_ids", "keys", "operations"}
    await succeed(served, *await admit(served, effect("a", "parcel.sent")))
    await shop.age()
    await shop.drop()
    done = await line("retention")
    assert done.returncode == 0, done
    assert "is kept for ever after its end" in done.stdout
    assert FLAG in done.stdout


async def test_a_kind_says_for_how_long_and_may_say_otherwise_under_its_version(served: Served, shop: History) -> None:  # P15
    for days in (30, 90):
        await served.ok("PUT", f"{P}/kinds/parcel.sent/versions/1", {**PARCEL, "retention_days": days})
    refused = await served.http.put(f"{P}/kinds/parcel.sent/versions/1", json={**PARCEL, "retention_days": 0})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/retention_days")
