"""Whether kills stop an instance, keep it, or let it go on: the rules alone (P8, P17, hazards 9 and 13)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from sagas.core.admission import Fence, Scope, Standing
from sagas.core.stops import Case, Done, Grant, Stop, stays, stop

FLAG, OTHER = "checkout", "shipping"
R, S = UUID(int=1), UUID(int=2)
KILLED_AT = datetime(2026, 11, 25, 3, tzinfo=UTC)
EARLIER, LATER = KILLED_AT - timedelta(seconds=1), KILLED_AT + timedelta(seconds=1)
OPEN = Fence(lock_key=1, off_variant="off", epoch=1, closed=False, rollback_id=None, opened=(1, 0))
CLOSED = msgspec.structs.replace(OPEN, epoch=2, closed=True, rollback_id=R)
LIFTED = msgspec.structs.replace(OPEN, epoch=3)
EU = msgspec.structs.replace(OPEN, epoch=2, scopes=(Scope(scope={"region": "eu"}, epoch=1, rollback_id=R),))
CAPTURE = Done(
    flag=FLAG, step="capture", is_off=False, status="succeeded", epoch=1, attributes={}, admitted_at=EARLIER,
    completed_at=EARLIER, revision=(1, 1),
)  # fmt: skip
STANDING = Standing(
    rollback_id=R, scope={}, closes_epoch=1, since_at=None, since_revision=None, is_closed=True, state="compensating",
    compensate="auto",
)  # fmt: skip
GRANT = Grant(rollback_id=R, closes_epoch=1, saga="order", version="1", pivot=None, granted_at=KILLED_AT)
PAST = msgspec.structs.replace(GRANT, pivot="capture")
TAKEN = msgspec.structs.replace(CAPTURE, taken_by=R)
CONTINUES = msgspec.structs.replace(TAKEN, continues=True)


def case(*effects: Done, fence: Fence = OPEN, standing: Any = (), grants: Any = (), **fields: Any) -> Case:
    values: dict[str, Any] = {
        "flag": FLAG, "saga": "order", "version": "1", "attributes": {"region": "eu"}, "effects": effects,
        "fences": {FLAG: fence, OTHER: OPEN}, "standing": {FLAG: standing}, "grants": {FLAG: grants}, **fields,
    }  # fmt: skip
    return Case(**values)


def changed(value: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(value, **fields)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (case(CAPTURE), None),
        (case(CAPTURE, fence=CLOSED), Stop(rollback_ids=(R,))),
        (case(fence=changed(CLOSED, rollback_id=None)), Stop()),
        (case(CAPTURE, fence=EU), Stop(rollback_ids=(R,))),
        (case(changed(CAPTURE, attributes={"region": "us"}), fence=EU, attributes={"region": "us"}), None),
        (case(TAKEN, fence=LIFTED), Stop(is_taken=True, rollback_ids=(R,))),
        (case(CAPTURE, fence=LIFTED, standing=[STANDING]), Stop(rollback_ids=(R,))),
        (case(CAPTURE, fence=LIFTED, standing=[changed(STANDING, since_at=LATER)]), None),
        (case(CAPTURE, fence=LIFTED, standing=[changed(STANDING, compensate="none", state="settled")]), None),
        (case(changed(CAPTURE, epoch=3), fence=LIFTED, standing=[STANDING]), None),
    ],
)
def test_what_stops_an_instance(found: Case, expected: Stop | None) -> None:
    assert stop(found) == expected
    assert stays(found) == expected


@pytest.mark.parametrize(
    ("found", "is_granted"),
    [
        (case(CAPTURE, fence=CLOSED, standing=[STANDING], grants=[GRANT]), True),
        (case(CONTINUES, fence=CLOSED, standing=[STANDING], grants=[GRANT]), True),
        (case(CONTINUES, fence=LIFTED, standing=[STANDING], grants=[GRANT]), True),
        (case(TAKEN, fence=CLOSED, standing=[STANDING], grants=[GRANT]), False),
        (case(fence=CLOSED, standing=[STANDING], grants=[GRANT]), False),
        (case(CAPTURE, fence=CLOSED, standing=[STANDING], grants=[changed(GRANT, version="2")]), False),
        (case(CAPTURE, fence=CLOSED, standing=[STANDING], grants=[PAST]), True),
        (case(changed(CAPTURE, completed_at=LATER), fence=CLOSED, standing=[STANDING], grants=[PAST]), False),
        (case(changed(CAPTURE, status="in_doubt"), fence=CLOSED, standing=[STANDING], grants=[PAST]), False),
        (case(CAPTURE, fence=CLOSED, standing=[changed(STANDING, since_at=LATER)], grants=[GRANT]), False),
        (
            case(CAPTURE, fence=CLOSED, standing=[changed(STANDING, state="settled", compensate="none")], grants=[GRANT]),
            True,
        ),
        (case(CONTINUES, fence=changed(CLOSED, rollback_id=S), standing=[STANDING], grants=[GRANT]), False),
    ],
)
def test_what_a_kill_grants(found: Case, is_granted: bool) -> None:
    assert (stop(found) == GRANT or stop(found) == PAST) is is_granted
    assert isinstance(stop(found), Stop) is not is_granted


def test_the_kill_of_another_flag_keeps_what_it_stopped() -> None:  # hazard 13
    theirs = changed(CAPTURE, flag=OTHER)
    fences = {FLAG: LIFTED, OTHER: changed(CLOSED, rollback_id=S)}
    assert stays(case(CAPTURE, theirs, fences=fences)) == Stop(rollback_ids=(S,))
    assert stays(case(CAPTURE, changed(theirs, status="failed"), fences=fences)) is None
