"""What must be seen after a kill: who is on the off variant, what the fence let pass, what became of what was in doubt."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from demo.purchases import Purchase
from demo.release import OLD
from demo.stage import CUT_OFF, SERVICES, Stage
from demo.story import Story

ASKED_MAX = 20
HOW = {
    "push": "over its stream",
    "catch-up": "from the header of a request",
    "reply": "from the header of a reply",
    "poll": "by asking anew",
}
ENDED = ("compensated", "irreversible")


async def contained(
    story: Story, stage: Stage, purchases: Sequence[Purchase], took_ms: dict[str, float | None], how: dict[str, str]
) -> None:
    """Point 1: every service is on the off variant, each with the milliseconds it took and how it came to know."""
    for name in SERVICES:
        took = took_ms.get(name)
        learned = HOW.get(how.get(name, ""), how.get(name) or "nobody knows how")
        cut = ", cut off from its stream," if name == CUT_OFF else ""
        asked = set(await asyncio.gather(*(_path(stage, name, purchase) for purchase in purchases[:ASKED_MAX])))
        text = f"{name}{cut} is on the off variant after {took or 0:.0f} ms; it learned {learned}"
        story.check(took is not None and asked == {OLD}, text, why_not=f"answers {asked}, took {took}")


async def _path(stage: Stage, service: str, purchase: Purchase) -> str:
    answer = await stage.http.get(f"{stage.services[service]}/variant", params={"customer": purchase.customer})
    return str(answer.json()["path"])


async def fence_held(story: Story, stage: Stage, record: dict[str, Any], effects: list[dict[str, Any]]) -> None:
    """Point 2: nothing of the old epoch was admitted after the kill, nothing of it began after the set was drained."""
    late, under_way = past_the_fence(record, effects)
    records = [(await stage.http.get(f"{stage.services[name]}/record")).json() for name in SERVICES]
    refused = sum(each["met"].get("killed", 0) for each in records)
    text = f"not one of {len(effects)} effects was admitted under the old epoch after the kill; {refused} were refused"
    story.check(not late, text, why_not=f"{len(late)} were, the first: {late[:3]}")
    if under_way:
        story.line(f"{under_way} had passed the fence as the kill committed; they are in the set")
    drained = datetime.fromisoformat(record["drained_at"]).timestamp() if record["drained_at"] else 0.0
    begun = [body for each in records for body in each["begun"] if body["variant"] != "off" and body["begun_at"] > drained]
    text = "no body of the release began after the set was drained"
    story.check(not begun, text, why_not=f"{len(begun)} did, the first: {begun[:1]}")


def past_the_fence(record: dict[str, Any], effects: list[dict[str, Any]]) -> tuple[list[str], int]:
    """Keys of effects of the release that were admitted although the kill had committed, and how many were under way.

    An admission that had passed the fence when the kill committed may be written down just after: it is in the set, and the
    drain barrier (`closed_at`) waits for it. After the barrier there is none, and none that is outside the set.
    """
    fenced_at = datetime.fromisoformat(record["fenced_at"])
    closed_at = datetime.fromisoformat(record["closed_at"] or record["fenced_at"])
    new = [(datetime.fromisoformat(effect["admitted_at"]), effect) for effect in effects if effect["variant"] != "off"]
    late = [e["key"] for at, e in new if at > closed_at or (at > fenced_at and e["rollback_id"] != record["id"])]
    return late, sum(at > fenced_at for at, _ in new) - len(late)


def doubts_resolved(story: Story, effects: list[dict[str, Any]]) -> None:
    """What was in doubt when the payment server's replies were lost has been looked up there, by our key (P16)."""
    of_release = [effect for effect in effects if effect["variant"] != "off"]
    looked_up = Counter(
        evidence.get("outcome") for effect in of_release for evidence in effect["evidence"] if evidence.get("what") == "look_up"
    )
    open_ones = [effect["key"] for effect in of_release if effect["status"] in ("admitted", "in_doubt")]
    text = (
        f"{looked_up['found'] + looked_up['absent']} captures were in doubt; by look-up {looked_up['found']} had happened and "
        f"were refunded, {looked_up['absent']} never had"
    )
    story.check(not open_ones, text, why_not=f"{len(open_ones)} are in doubt still: {open_ones[:3]}")


def ended(effects: list[dict[str, Any]], rollback_id: str) -> dict[str, frozenset[str]]:
    """Per kind, the effects that this rollback says it has compensated or reported as irreversible."""
    found: dict[str, set[str]] = defaultdict(set)
    for effect in effects:
        if effect["rollback_id"] == rollback_id and effect["disposition"] in ENDED:
            found[effect["kind"]].add(effect["effect_id"])
    return {kind: frozenset(ids) for kind, ids in found.items()}
