"""P11 to P16 on a real PostgreSQL, with real servers outside."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import pytest

from sagas import settlement
from sagas.enumeration import CHUNK_FIRST
from tests.sagas.coordinator.world import ENVIRONMENT, FLAG, MAIL, NOTICE, REFUND, RETRY, World
from tests.waiting import until


async def test_every_effect_of_the_set_ends_as_exactly_one_thing_and_it_adds_up(world: World) -> None:  # P12
    await world.define(REFUND, MAIL, NOTICE)
    captures = [await world.effect(REFUND, f"o{n}", subject=f"c{n % 3}") for n in range(6)]
    mails = [await world.effect(MAIL, f"o{n}", subject=f"c{n % 3}") for n in range(6)]
    hooks = [await world.effect(NOTICE, f"o{n}", subject=f"c{n % 3}") for n in range(6)]
    failed = await world.effect(REFUND, "o9", status="failed")
    survives = await world.effect(REFUND, "o10", is_off=True)
    later = await world.effect(REFUND, "o11", epoch=2)
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    expected = (
        dict.fromkeys([*captures, *mails], "compensated") | dict.fromkeys(hooks, "irreversible") | {failed: "never_happened"}
    )
    assert await world.dispositions(rollback) == expected
    assert survives not in expected
    assert later not in expected
    assert len(world.payments.refunds) == 6
    assert len(world.mail.mails) == 3
    assert len(world.partner.posts) == 6
    row = (await world.rows("SELECT * FROM sagas.rollbacks WHERE id = $1", rollback))[0]
    assert row["settled_sums"]["adds_up"] is True
    assert row["whole_at"] is not None
    async with world.pg.connection() as connection:
        counts = {kind.kind: kind for kind in await settlement.counts(connection, rollback)}
    assert counts["payment.capture"].admitted == 7
    assert counts["payment.capture"].compensated == 6
    assert counts["payment.capture"].money["compensated"] == {"USD": 6000}
    assert await world.value("SELECT count(*) FROM sagas.effects WHERE undone") == 18
    assert await world.value("SELECT count(*) FROM sagas.subjects") == 0


async def test_a_scope_takes_what_matches_it_and_what_lacks_the_attribute(world: World) -> None:  # P12, P4
    await world.define(REFUND)
    inside = await world.effect(REFUND, "o1", attributes={"country": "DE"})
    unknown = await world.effect(REFUND, "o2")
    await world.effect(REFUND, "o3", attributes={"country": "FR"})
    rollback = await world.kill(scope={"country": "DE"})
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == dict.fromkeys([inside, unknown], "compensated")


async def test_an_outcome_reported_after_the_kill_is_compensated(world: World) -> None:  # P11
    await world.define(REFUND)
    effect = await world.effect(REFUND, "o1", status="admitted", lease_seconds=60)
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.value("SELECT count(*) FROM sagas.dispositions WHERE judge_at IS NOT NULL"))
    await world.report(effect, "succeeded", {"id": next(iter(world.payments.intents))})
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {effect: "compensated"}


async def test_a_settled_rollback_reopens_for_late_news_and_keeps_its_first_time(world: World) -> None:  # P11
    await world.define(REFUND)
    effect = await world.effect(REFUND, "o1", status="failed")
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    first = await world.value("SELECT settled_at FROM sagas.rollbacks WHERE id = $1", rollback)
    assert await world.dispositions(rollback) == {effect: "never_happened"}
    await world.report(effect, "succeeded", {"id": world.payments.capture(effect, 1000)})
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {effect: "compensated"}
    row = (await world.rows("SELECT settled_at, reopened_count FROM sagas.rollbacks WHERE id = $1", rollback))[0]
    assert (row["settled_at"], row["reopened_count"]) == (first, 1)


async def test_a_refund_whose_reply_was_lost_is_repeated_under_its_key_and_done_once(world: World) -> None:  # P13
    await world.define(REFUND)
    effect = await world.effect(REFUND, "o1")
    world.payments.fates = ["lost", "500", "dropped"]
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert len(world.payments.refunds) == 1
    keys = {headers["idempotency-key"] for _, headers, _ in world.payments.posts}
    assert keys == {f"{effect}:refund"}
    assert len(world.payments.posts) == 4


async def test_a_mail_whose_reply_was_lost_waits_for_a_person_and_is_not_sent_again(world: World) -> None:  # P13
    await world.define(MAIL)
    effect = await world.effect(MAIL, "o1", subject="c1")
    world.mail.fates = ["lost"]
    rollback = await world.kill()
    await world.started()
    await until(lambda: _in(world, rollback, "waiting"))
    row = (await world.rows("SELECT reason, proof, attempt FROM sagas.compensations"))[0]
    assert (row["reason"], row["attempt"]) == ("in_doubt", 1)
    assert row["proof"]["message_id"] == world.mail.ids()[0]
    assert await world.dispositions(rollback) == {effect: "waiting"}
    assert await world.value("SELECT count(*) FROM sagas.subjects") == 1, "in doubt keeps the subject (hazard 16)"


async def test_a_mail_refused_for_now_is_tried_again_under_one_message_id(world: World) -> None:  # P13
    await world.define(MAIL)
    await world.effect(MAIL, "o1", subject="c1")
    world.mail.fates = ["later", "later"]
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    compensation = await world.value("SELECT id FROM sagas.compensations")
    assert world.mail.ids() == [f"<{compensation}@rescind>"]


async def test_one_mail_per_subject_tells_of_all_its_effects(world: World) -> None:  # P13
    await world.define(MAIL)
    effects = [await world.effect(MAIL, f"o{n}", subject="c1") for n in range(5)]
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == dict.fromkeys(effects, "compensated")
    assert len(world.mail.mails) == 1
    text = str(world.mail.mails[0].get_payload())
    assert all(f"confirm:o{n}:" in text for n in range(5))
    assert "bad release" in text
    proofs = await world.rows("SELECT DISTINCT proof FROM sagas.dispositions")
    assert len(proofs) == 1, "they share the proof"


async def test_one_mail_per_subject_tells_of_its_effects_in_every_chunk_of_the_set(world: World) -> None:  # P13, hazard 18
    await world.define(MAIL)
    effects = [await world.effect(MAIL, f"o{n}", subject="c1") for n in range(CHUNK_FIRST + 5)]
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == dict.fromkeys(effects, "compensated")
    assert len(world.mail.mails) == await world.value("SELECT count(*) FROM sagas.compensations") == 1
    text = str(world.mail.mails[0].get_payload(decode=True))
    assert all(f"confirm:o{n}:" in text for n in range(len(effects)))


async def test_nothing_is_repeated_by_itself_once_the_providers_window_has_passed(world: World) -> None:  # P13
    await world.define(
        {**REFUND, "provider_window_seconds": 0.15, "retry": {**RETRY, "first_seconds": 0.2, "cap_seconds": 0.2}}
    )
    await world.effect(REFUND, "o1")
    world.payments.fates = ["500"] * 50
    rollback = await world.kill()
    await world.started()
    await until(lambda: _in(world, rollback, "waiting"))
    assert await world.value("SELECT reason FROM sagas.compensations") == "provider_window_passed"


async def test_a_refund_somebody_else_gave_waits_for_a_person_with_the_evidence(world: World) -> None:  # P13, P17
    await world.define(REFUND)
    await world.effect(REFUND, "o1")
    intent = next(iter(world.payments.intents))
    world.payments.refunds.append({"id": "re_by_hand", "payment_intent": intent, "amount": 1000, "metadata": {}})
    rollback = await world.kill()
    await world.started()
    await until(lambda: _in(world, rollback, "waiting"))
    proof = await world.value("SELECT proof FROM sagas.compensations")
    assert proof["code"] == "charge_already_refunded"
    assert proof["payment"] == intent
    assert world.payments.refunded(intent) == 1000


async def test_a_refund_of_ours_that_the_provider_forgot_the_key_of_is_recognised(world: World) -> None:  # P13
    await world.define(REFUND)
    effect = await world.effect(REFUND, "o1")
    world.payments.fates = ["lost"]
    forget = world.payments.keys
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.payments.refunds)
    forget.clear()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {effect: "compensated"}
    assert len(world.payments.refunds) == 1


async def test_within_a_saga_instance_the_latest_completion_is_undone_first(world: World) -> None:  # P14
    steps = [{**REFUND, "name": name} for name in ("a", "b", "c")]
    await world.define(*steps)
    # completed in another order than admitted: actual completion counts
    order = {"a": 1.0, "c": 2.0, "b": 3.0}
    effects: dict[str, uuid.UUID] = {}
    for step in steps:
        at = await world.ago(order[str(step["name"])])
        effects[str(step["name"])] = await world.effect(step, "o1", completed_at=at)
    world.payments.fates = ["429", "500"]  # failures do not let an earlier one overtake
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    done = [refund["metadata"]["rescind_effect"] for refund in world.payments.refunds]
    assert done == [str(effects["a"]), str(effects["c"]), str(effects["b"])]


SHIP = {**REFUND, "name": "ship", "kind": "parcel.fee"}
OTHER = "other.flag"


async def looked_again(world: World, rollback: uuid.UUID, effect: uuid.UUID) -> None:
    """The coordinator has gone over the whole rollback since now: it takes news once per round, before it begins anything."""
    for _ in range(2):
        await world.run("INSERT INTO sagas.late (rollback_id, effect_id) VALUES ($1, $2)", rollback, effect)

        async def taken() -> bool:
            return not await world.value("SELECT count(*) FROM sagas.late WHERE rollback_id = $1", rollback)

        await until(taken)


async def paused(world: World, flag: str) -> uuid.UUID:
    """A kill that is paused before anything of it begins, and whose effects are found."""
    rollback = await world.kill(flag)
    await world.run("UPDATE sagas.rollbacks SET paused = true WHERE id = $1", rollback)
    await world.started()
    await until(lambda: _in(world, rollback, "paused"))
    return rollback


async def resume(world: World, rollback: uuid.UUID) -> None:
    await world.run("UPDATE sagas.rollbacks SET paused = false, state = 'compensating' WHERE id = $1", rollback)


async def test_an_earlier_step_waits_for_a_later_one_that_another_rollback_undoes(world: World) -> None:  # P14
    await world.flag(OTHER)
    await world.define(REFUND, SHIP)
    earlier = await world.effect(REFUND, "o1", completed_at=await world.ago(5))
    later = await world.effect(SHIP, "o1", flag=OTHER)
    second = await paused(world, OTHER)
    first = await world.kill(FLAG)
    await looked_again(world, first, earlier)
    assert world.payments.refunds == []
    await resume(world, second)
    await until(lambda: world.is_settled(first))
    await until(lambda: world.is_settled(second))
    done = [refund["metadata"]["rescind_effect"] for refund in world.payments.refunds]
    assert done == [str(later), str(earlier)]


async def test_a_notice_waits_for_a_later_step_that_another_rollback_undoes(world: World) -> None:  # P14
    await world.flag(OTHER)
    await world.define(MAIL, SHIP)
    notice = await world.effect(MAIL, "o1", subject="c1", completed_at=await world.ago(5))
    await world.effect(SHIP, "o1", flag=OTHER)
    second = await paused(world, OTHER)
    first = await world.kill(FLAG)
    await looked_again(world, first, notice)
    assert world.mail.mails == []
    await resume(world, second)
    await until(lambda: world.is_settled(first))
    assert len(world.payments.refunds) == 1
    assert await world.value("SELECT count(*) FROM sagas.attempts WHERE relaxed") == 0


async def test_merged_mails_of_two_rollbacks_that_wait_for_each_other_are_sent(world: World) -> None:  # P14
    await world.flag(OTHER)
    mail = {**MAIL, "independent": True}
    other = {**mail, "name": "thanks", "kind": "mail.thanks"}
    await world.define(mail, other)
    for instance, pair in {"o1": ((mail, FLAG), (other, OTHER)), "o2": ((other, OTHER), (mail, FLAG))}.items():
        for seconds, (step, flag) in zip((2, 1), pair, strict=True):
            at = await world.ago(seconds)
            await world.effect(step, instance, subject="c1", flag=flag, completed_at=at)
    rollbacks = [await world.kill(flag) for flag in (FLAG, OTHER)]
    await world.run("UPDATE sagas.rollbacks SET paused = true")  # until the effects of both are found
    await world.started()
    for rollback in rollbacks:
        await until(lambda rollback=rollback: _in(world, rollback, "paused"))  # type: ignore[misc]
    await world.run("UPDATE sagas.rollbacks SET paused = false, state = 'compensating'")
    for rollback in rollbacks:
        await until(lambda rollback=rollback: world.is_settled(rollback))  # type: ignore[misc]
    assert len(world.mail.mails) == 2
    assert await world.value("SELECT count(*) FROM sagas.attempts WHERE relaxed") >= 1


async def test_one_subject_has_one_compensation_at_a_time(world: World) -> None:  # P14
    await world.define(REFUND)
    for n in range(8):
        await world.effect(REFUND, f"o{n}", subject="c1")
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    rows = await world.rows("SELECT started_at, ended_at FROM sagas.attempts ORDER BY started_at")
    assert len(rows) == 8
    assert all(later["started_at"] >= earlier["ended_at"] for earlier, later in itertools.pairwise(rows))


async def test_a_failing_compensation_does_not_block_its_siblings(world: World) -> None:  # P14
    await world.define(REFUND)
    bad = await world.effect(REFUND, "o1", captured=False)
    await world.run('UPDATE sagas.effects SET result = \'{"id": "pi_unknown"}\' WHERE id = $1', bad)
    others = [await world.effect(REFUND, f"x{n}") for n in range(5)]
    rollback = await world.kill()
    await world.started()
    await until(lambda: _in(world, rollback, "waiting"))
    assert await world.dispositions(rollback) == {bad: "waiting"} | dict.fromkeys(others, "compensated")


async def test_merged_mails_that_wait_for_each_other_are_sent_and_the_record_says_so(world: World) -> None:  # P14
    other = {**MAIL, "name": "thanks", "kind": "mail.thanks"}
    await world.define(MAIL, other)
    for instance, (first, second) in {"o1": (MAIL, other), "o2": (other, MAIL)}.items():
        await world.effect(first, instance, subject="c1", completed_at=await world.ago(2))
        await world.effect(second, instance, subject="c1", completed_at=await world.ago(1))
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert len(world.mail.mails) == 2
    assert await world.value("SELECT count(*) FROM sagas.attempts WHERE relaxed") == 1


async def test_a_compensation_follows_the_definition_version_of_its_effect(world: World) -> None:  # P15
    other: dict[str, Any] = {**MAIL, "compensation": {**MAIL["compensation"], "subject": "The new words"}}
    await world.define(MAIL, version="1")
    await world.define(other, version="2")
    await world.effect(MAIL, "o1", subject="c1", version="1")
    await world.effect(MAIL, "o2", subject="c2", version="2")
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    subjects = {str(mail["To"]): str(mail["Subject"]) for mail in world.mail.mails}
    assert subjects["c1@example.com"].startswith("Correction of confirm:o1")
    assert subjects["c2@example.com"] == "The new words"


async def test_a_loose_effect_that_names_no_version_follows_the_one_in_force_when_it_was_admitted(world: World) -> None:  # P15
    loose = {**MAIL, "name": "gift", "kind": "gift.send"}
    before = await world.effect(loose, "o0", subject="c0")
    for version in ("1", "2"):
        await define_kind(world, loose, version)
        await world.effect(loose, f"o{version}", subject=f"c{version}")
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.value("SELECT state IN ('waiting', 'settled') FROM sagas.rollbacks WHERE id = $1", rollback))
    told = {str(mail["To"]): str(mail["Subject"]) for mail in world.mail.mails}
    assert told == {"c1@example.com": "In the words of 1", "c2@example.com": "In the words of 2"}
    assert (await world.dispositions(rollback))[before] == "waiting", "nothing was defined when it was admitted"


async def define_kind(world: World, step: dict[str, Any], version: str) -> None:
    """A version of a loose kind, in force from now on."""
    document = {name: step[name] for name in ("kind", "settle_seconds", "retry", "timeout_seconds", "in_doubt")}
    compensation = {**step["compensation"], "subject": f"In the words of {version}"}
    await world.run(
        "INSERT INTO sagas.definitions (environment, name, is_kind, version, document, semantics_hash, created_by) "
        "VALUES ($1, $2, true, $3, $4, '', 'test')",
        ENVIRONMENT,
        step["kind"],
        version,
        {**document, "version": version, "compensation": compensation},
    )


async def test_an_effect_nobody_defined_waits_for_a_person(world: World) -> None:  # P15
    await world.define(REFUND)
    effect = await world.effect({**REFUND, "name": "unheard-of", "kind": "gift.sent"}, "o1")
    rollback = await world.kill()
    await world.started()
    await until(lambda: _in(world, rollback, "waiting"))
    assert await world.value("SELECT reason FROM sagas.dispositions WHERE effect_id = $1", effect) == "no_definition"


@pytest.mark.parametrize("status", ["admitted", "in_doubt"])
async def test_a_capture_in_doubt_is_looked_up_and_refunded_when_it_was_done(world: World, status: str) -> None:  # P16
    await world.define(REFUND)
    effect = await world.effect(REFUND, "o1", status=status)
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {effect: "compensated"}
    assert world.payments.refunds[0]["payment_intent"] == next(iter(world.payments.intents))


async def test_a_capture_the_provider_knows_nothing_of_never_happened_and_its_key_is_closed(world: World) -> None:  # P16
    await world.define(REFUND)
    effect = await world.effect(REFUND, "o1", status="in_doubt", captured=False)
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {effect: "never_happened"}
    row = (await world.rows("SELECT status, tombstoned, undone FROM sagas.effects WHERE id = $1", effect))[0]
    assert (row["status"], row["tombstoned"], row["undone"]) == ("failed", True, False)
    assert world.payments.refunds == []


async def test_an_effect_that_is_proven_to_have_failed_is_closed_with_the_set_that_names_it(world: World) -> None:  # P16
    await world.define(REFUND, MAIL)
    failed = [await world.effect(REFUND, "o1", status="failed"), await world.effect(MAIL, "o2", subject="c", status="failed")]
    outside = await world.effect(REFUND, "o3", status="failed", epoch=2)
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == dict.fromkeys(failed, "never_happened")
    rows = await world.rows("SELECT id, tombstoned, undone FROM sagas.effects")
    closed = {row["id"]: (row["tombstoned"], row["undone"]) for row in rows}
    assert closed == dict.fromkeys(failed, (True, False)) | {outside: (False, False)}


async def test_absence_proves_nothing_before_lease_and_settle_delay_have_run_out(world: World) -> None:  # P16, P8
    await world.define({**REFUND, "settle_seconds": 0.6})
    effect = await world.effect(REFUND, "o1", status="in_doubt", captured=False, lease_seconds=0.2)
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.value("SELECT count(*) FROM sagas.attempts WHERE verb = 'look_up'"))
    assert await world.dispositions(rollback) == {effect: "pending"}
    world.payments.capture(effect, 1000)  # a late commit at the provider
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {effect: "compensated"}


async def test_an_effect_in_doubt_whose_definition_says_wait_waits_for_a_person(world: World) -> None:  # P16
    await world.define({**REFUND, "in_doubt": "wait"})
    effect = await world.effect(REFUND, "o1", status="in_doubt")
    rollback = await world.kill()
    await world.started()
    await until(lambda: _in(world, rollback, "waiting"))
    assert await world.value("SELECT reason FROM sagas.dispositions WHERE effect_id = $1", effect) == "in_doubt"
    assert world.payments.posts == []


async def test_an_effect_in_doubt_is_taken_as_done_where_that_is_harmless(world: World) -> None:  # P16
    await world.define(MAIL)
    effect = await world.effect(MAIL, "o1", subject="c1", status="in_doubt")
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {effect: "compensated"}


async def test_what_has_not_reported_is_left_alone_until_its_lease_has_run_out(world: World) -> None:  # P8
    await world.define(REFUND)
    effect = await world.effect(REFUND, "o1", status="admitted", lease_seconds=0.7)
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    assert await world.dispositions(rollback) == {effect: "compensated"}
    first = await world.value("SELECT min(started_at) FROM sagas.attempts")
    assert first >= await world.value("SELECT lease_until FROM sagas.effects WHERE id = $1", effect)


async def test_a_kill_takes_what_was_completed_later_in_the_same_saga_instance(world: World) -> None:  # hazard 13
    other = {**REFUND, "name": "ship", "kind": "parcel.fee"}
    alone = {**REFUND, "name": "points", "kind": "points.bought", "independent": True}
    await world.flag("other.flag")
    await world.define(REFUND, other, alone)
    before = await world.effect(other, "o1", flag="other.flag", completed_at=await world.ago(9))
    taken = await world.effect(REFUND, "o1", completed_at=await world.ago(5))
    after = await world.effect(other, "o1", flag="other.flag", completed_at=await world.ago(1))
    independent = await world.effect(alone, "o1", flag="other.flag", completed_at=await world.ago(1))
    rollback = await world.kill()
    await world.started()
    await until(lambda: world.is_settled(rollback))
    found = await world.dispositions(rollback)
    assert set(found) == {taken, after}
    assert before not in found
    assert independent not in found


async def test_two_kills_may_name_one_effect_which_is_undone_once_and_reported_by_both(world: World) -> None:  # hazard 11
    await world.flag("other.flag")
    await world.define(REFUND, {**REFUND, "name": "ship", "kind": "parcel.fee"})
    await world.effect(REFUND, "o1", completed_at=await world.ago(5))
    shared = await world.effect({**REFUND, "name": "ship", "kind": "parcel.fee"}, "o1", flag="other.flag")
    first = await world.kill(FLAG)
    second = await world.kill("other.flag")
    await world.started()
    await until(lambda: world.is_settled(first))
    await until(lambda: world.is_settled(second))
    both = [(await world.dispositions(rollback)).get(shared) for rollback in (first, second)]
    assert "compensated" in both
    assert len(world.payments.refunds) == 2


async def _in(world: World, rollback: uuid.UUID, state: str) -> bool:
    return await world.state(rollback) == state
