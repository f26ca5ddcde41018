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
from runtime.postgres import Connection
from runtime.principal import Principal
from runtime.problem import fault_of
from server.rollbacks.errors import UNKNOWN_FLAG, state_of, unknown_flag
from server.rollbacks.recovery import recover
from server.rollbacks.requests import KillRequest, faults_of
from server.rollbacks.service import KillAnswer, Kills, kill_within

KILL_FIELDS = frozenset(KillRequest.__struct_fields__) - {"reason"}


class KillOperation(msgspec.Struct, frozen=True, kw_only=True):
    """One `{"op": "kill"}`; operations that ask for the same are one rollback of several flags."""

    key: str
    request: KillRequest


class ChangeLists:
    """Carries out change lists that hold kills: those asked for now, and those that were scheduled (`flagd.schedules`)."""

    def __init__(self, flags: FlagService, kills: Kills, entropy: Entropy) -> None:
        self._flags = flags
        self._kills = kills
        self._entropy = entropy

    async def carry_out(self, environment: str, body: dict[str, Any], principal: Principal) -> dict[str, Any]:
        """All operations under one revision, kills included, or none. Raises `Problem` 403, 404, 409, 422."""
        faults = documents.unknown_fields(body, dict.fromkeys(("operations", "reason", "expected_revision", "past_gate")), "")
        reason, wrong = documents.read_reason(body)
        expected, unread = documents.read_revision(body)
        past_gate, unsaid = documents.read_past_gate(body, reason)
        items = body["operations"]
        flaws = self.faults(items, reason)
        operations, more = changes.read_operations(items, await self._flags.checker(environment, items), with_kills=True)
        if found := [*faults, *wrong, *unread, *unsaid, *flaws, *more]:
            raise refused(found)
        self.permit(environment, items, principal)
        try:
            async with self._flags.transaction() as connection:
                revision, answers = await self._write(
                    connection, environment, items, operations, actor=principal.name, reason=reason, expected_revision=expected,
                    past_gate=past_gate,
                )  # fmt: skip
        except asyncpg.PostgresError as error:
            keys = [str(item["key"]) for item in items if changes.is_kill(item)]
            raise await self._kills.refusal(error, environment, keys) or error from error
        self.told(environment, revision)
        answers = [await self._kills.stamped(answer) for answer in answers]
        return {"revision": str(revision), "kills": [msgspec.to_builtins(answer) for answer in answers]}

    def faults(self, items: list[Any], reason: str | None) -> list[wire.Fault]:
        """Everything that is wrong with the kills of a list."""
        return read_kills(items, reason)[1]

    def permit(self, environment: str, items: list[Any], principal: Principal) -> None:
        """Raise `Problem` 403 unless these flags may be killed by this one."""
        for item in items:
            if changes.is_kill(item):
                principal.require(f"kill:{item['key']}", environment)

    async def write(
        self,
        connection: Connection,
        environment: str,
        items: list[Any],
        operations: list[changes.Operation],
        **given: Any,
    ) -> tuple[wire.Revision, list[str]]:
        """A list that is right, in the caller's transaction: its revision, and the rollbacks of its kills.

        `given` is for `FlagService.write`. Raises `Problem`. The caller tells (`told`) once it has committed.
        """
        try:
            revision, answers = await self._write(connection, environment, items, operations, **given)
        except asyncpg.PostgresError as error:
            if state_of(error) != UNKNOWN_FLAG:
                raise
            raise unknown_flag(getattr(error, "detail", None) or "", environment, ()) from error
        return revision, [answer.rollback_id for answer in answers]

    def told(self, environment: str, revision: wire.Revision) -> None:
        """Tell replicas and coordinator of a commit, without waiting for either."""
        self._kills.told(environment, revision)

    async def _write(
        self,
        connection: Connection,
        environment: str,
        items: list[Any],
        operations: list[changes.Operation],
        *,
        actor: str,
        reason: str | None,
        **given: Any,
    ) -> tuple[wire.Revision, list[KillAnswer]]:
        kills, _ = read_kills(items, reason)
        seen, kills_only = await self._kills.seen(environment), not operations
        if kills_only:
            await recover(connection, environment, seen, actor)
        revision = await self._flags.write(
            connection, environment, operations, actor=actor, reason=reason,
            pointers=changes.pointers_of(operations, changes.places_beside_kills(items)),
            beside=[{"op": "kill", "key": kill.key, "scope": kill.request.scope} for kill in kills],
            **{**given, "seen": seen.revision, "through_recovery": kills_only},
        )  # fmt: skip
        answers = [
            await kill_within(
                connection, environment, keys, request, actor,
                rollback_id=self._entropy.uuid7(), in_change=True, seen=seen,
            )
            for keys, request in together(kills)
        ]  # fmt: skip
        return revision, answers


def read_kills(items: list[Any], reason: str | None) -> tuple[list[KillOperation], list[wire.Fault]]:
    """The kills of a change list, and everything that is wrong with them. Their reason is the list's."""
    kills: list[KillOperation] = []
    faults: list[wire.Fault] = []
    seen: set[str] = set()
    for index, item in enumerate(items):
        if not changes.is_kill(item):
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
