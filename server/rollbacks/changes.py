"""Change lists that hold a kill: puts, archives and kills of one environment in one revision (P1).

In recovery a list of nothing but kills goes through, as every kill does; another one is refused whole.
"""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec
from rescind import wire

from flagd.core import changes, documents
from flagd.errors import refused
from flagd.service import FlagService
from runtime.clock import Entropy
from runtime.postgres import Postgres
from runtime.principal import Principal
from runtime.problem import fault_of
from server.rollbacks.recovery import recover
from server.rollbacks.requests import KillRequest, faults_of
from server.rollbacks.service import KillAnswer, Kills, kill_within

KILL_FIELDS = frozenset(KillRequest.__struct_fields__) - {"reason"}


class KillOperation(msgspec.Struct, frozen=True, kw_only=True):
    """One `{"op": "kill"}`; operations that ask for the same are one rollback of several flags."""

    key: str
    request: KillRequest


class ChangeLists:
    """Carries out change lists that hold kills."""

    def __init__(self, pg: Postgres, flags: FlagService, kills: Kills, entropy: Entropy) -> None:
        self._pg = pg
        self._flags = flags
        self._kills = kills
        self._entropy = entropy

    async def carry_out(self, environment: str, body: dict[str, Any], principal: Principal) -> dict[str, Any]:
        """All operations under one revision, kills included, or none. Raises `Problem` 403, 404, 409, 422."""
        faults = documents.unknown_fields(body, dict.fromkeys(("operations", "reason", "expected_revision")), "")
        reason, wrong = documents.read_reason(body)
        expected, unread = documents.read_revision(body)
        items = body["operations"]
        kills, flaws = read_kills(items, reason)
        others = [item for item in items if not is_kill(item)]
        operations: list[changes.Operation] = []
        if others:
            operations, more = changes.read_operations(others, await self._flags.checker(environment, others))
            flaws += renumbered(more, items)
        if found := [*faults, *wrong, *unread, *flaws]:
            raise refused(found)
        for kill in kills:
            principal.require(f"kill:{kill.key}", environment)
        revision, answers = await self._write(environment, operations, kills, principal.name, reason, expected)
        self._kills.told(environment, revision)
        answers = [await self._kills.stamped(answer) for answer in answers]
        return {"revision": str(revision), "kills": [msgspec.to_builtins(answer) for answer in answers]}

    async def _write(
        self,
        environment: str,
        operations: list[changes.Operation],
        kills: list[KillOperation],
        actor: str,
        reason: str | None,
        expected: wire.Revision | None,
    ) -> tuple[wire.Revision, list[KillAnswer]]:
        answers: list[KillAnswer] = []
        flags = [kill.key for kill in kills]
        seen = await self._kills.seen(environment)
        kills_only = not operations
        try:
            async with self._pg.transaction() as connection:
                if kills_only:
                    await recover(connection, environment, seen, actor)
                revision = await self._flags.write(
                    connection, environment, operations, actor=actor, reason=reason, expected_revision=expected,
                    beside=[{"op": "kill", "key": kill.key, "scope": kill.request.scope} for kill in kills],
                    seen=seen.revision, through_recovery=kills_only,
                )  # fmt: skip
                for keys, request in together(kills):
                    answers.append(
                        await kill_within(
                            connection, environment, keys, request, actor,
                            rollback_id=self._entropy.uuid7(), in_change=True, seen=seen,
                        )
                    )  # fmt: skip
        except asyncpg.PostgresError as error:
            raise await self._kills.refusal(error, environment, flags) or error from error
        return revision, answers


def is_kill(item: object) -> bool:
    """Whether the operation is a kill."""
    return isinstance(item, dict) and item.get("op") == "kill"


def read_kills(items: list[Any], reason: str | None) -> tuple[list[KillOperation], list[wire.Fault]]:
    """The kills of a change list, and everything that is wrong with them. Their reason is the list's."""
    kills: list[KillOperation] = []
    faults: list[wire.Fault] = []
    seen: set[str] = set()
    for index, item in enumerate(items):
        if not is_kill(item):
            if isinstance(item, dict) and isinstance(item.get("flag"), dict):
                seen.add(str(item["flag"].get("key")))
            continue
        at = f"/operations/{index}"
        key = item.get("key")
        if not isinstance(key, str) or not documents.is_key(key):
            faults.append(wire.Fault(pointer=f"{at}/key", code="bad_key", detail="`key` names the flag"))
            continue
        if any(kill.key == key for kill in kills):
            faults.append(wire.Fault(pointer=at, code="twice", detail=f"flag `{key}` is killed twice in one change"))
        asked = {name: value for name, value in item.items() if name not in ("op", "key")}
        try:
            request = msgspec.convert(
                {"reason": "a change list", **asked, **({"reason": reason} if reason else {})}, KillRequest
            )
        except msgspec.ValidationError as error:
            found = fault_of(error, at)
            faults.append(wire.Fault(pointer=found.pointer, detail=found.detail))
        else:
            faults += [wire.Fault(pointer=at + one.pointer, detail=one.detail) for one in faults_of(request)]
            kills.append(KillOperation(key=key, request=request))
    if not reason:
        faults.append(wire.Fault(pointer="/reason", code="missing", detail="a kill needs a reason"))
    return kills, faults


def together(kills: list[KillOperation]) -> list[tuple[list[str], KillRequest]]:
    """Kills that ask for the same as one: one rollback of several flags."""
    groups: dict[bytes, tuple[list[str], KillRequest]] = {}
    for kill in kills:
        groups.setdefault(msgspec.json.encode(kill.request, order="deterministic"), ([], kill.request))[0].append(kill.key)
    return list(groups.values())


def renumbered(faults: list[wire.Fault], items: list[Any]) -> list[wire.Fault]:
    """Faults of the operations that are no kills, at the places where those stand in the whole list."""
    places = [index for index, item in enumerate(items) if not is_kill(item)]
    return [_moved(fault, places) for fault in faults]


def _moved(fault: wire.Fault, places: list[int]) -> wire.Fault:
    head, _, rest = fault.pointer.removeprefix("/operations/").partition("/")
    if not fault.pointer.startswith("/operations/") or not head.isdecimal():
        return fault
    pointer = f"/operations/{places[int(head)]}" + (f"/{rest}" if rest else "")
    return msgspec.structs.replace(fault, pointer=pointer)
