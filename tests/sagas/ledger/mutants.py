"""The mutants that the hammer has to catch: each breaks one rule of the fence, and nothing else (P8, hazards 3 and 10)."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from uuid import UUID

import rescind.admission
from asyncpg import Connection
from rescind.wire import AdmitResult

from runtime.postgres import transaction_on
from sagas.core.asks import Ask
from sagas.core.reports import Report
from sagas.ledger.admission import Admission, Answer
from sagas.ledger.answers import admitted
from sagas.ledger.reports import Answer as ReportAnswer
from sagas.ledger.reports import Reports
from sagas.store import locking
from sagas.store_reports import Place

UPDATE_WHERE_OPEN = """
UPDATE sagas.effects AS e SET
    status = 'admitted', begun = false, attempt = e.attempt + 1, token = gen_random_uuid(),
    start_until = clock_timestamp() + interval '2 seconds', lease_until = clock_timestamp() + interval '30 seconds'
FROM sagas.fences AS f, sagas.keys AS k
WHERE k.environment = $1 AND k.kind = $2 AND k.key = $3 AND e.id = k.effect_id AND e.status = 'failed' AND NOT e.tombstoned
    AND f.environment = e.environment AND f.flag = e.flag AND f.scope_key = '' AND NOT f.closed
RETURNING e.id, e.token, e.epoch, e.attempt
"""


class WithoutLock(Admission):
    """`WHERE open` with nothing to hold the kill's barrier back."""

    def transaction(self, connection: Connection, lock_keys: Iterable[int]) -> AbstractAsyncContextManager[None]:
        """Takes none."""
        return transaction_on(connection)


class RepeatableRead(Admission):
    """A snapshot taken before the lock was granted."""

    def transaction(self, connection: Connection, lock_keys: Iterable[int]) -> AbstractAsyncContextManager[None]:
        """As a hostile default would have it."""

        @contextlib.asynccontextmanager
        async def hostile() -> AsyncIterator[None]:
            async with connection.transaction(isolation="repeatable_read"):
                await connection.execute(locking(lock_keys))
                yield

        return hostile()


class ReadmitsByUpdate(Admission):
    """A key that is proven not done is admitted again by one `UPDATE ... WHERE open`, with no lock."""

    async def flush(self, connection: Connection, asks: Sequence[Ask]) -> list[Answer]:
        """The others, as ever."""
        answers: dict[int, Answer] = {}
        async with transaction_on(connection):
            for index, ask in enumerate(asks):
                row = await connection.fetchrow(UPDATE_WHERE_OPEN, ask.environment, ask.kind, ask.key)
                if row is not None:
                    answers[index] = admitted(row["id"], row["token"], row["epoch"], row["attempt"])
        left = [index for index in range(len(asks)) if index not in answers]
        answers |= dict(zip(left, await super().flush(connection, [asks[index] for index in left]), strict=True))
        return [answers[index] for index in range(len(asks))]


class Dawdling(Reports):
    """No mutant: reports that take their time between what they read and their commit, as on a busy machine."""

    chance = random.Random(5)

    async def record(self, connection: Connection, group: Sequence[Report], places: dict[UUID, Place]) -> list[ReportAnswer]:
        """As ever, then a rest before the commit."""
        answers = await super().record(connection, group, places)
        await asyncio.sleep(self.chance.random() * 0.04)
        return answers


class OutsideTheFence(Dawdling):
    """Reports that pass no fence."""

    def transaction(self, connection: Connection, lock_keys: Iterable[int]) -> AbstractAsyncContextManager[None]:
        """Takes none."""
        return transaction_on(connection)


class FromTheReply(rescind.admission.Admission):
    """An instance whose start window counts from the answer, not from before it asked."""

    async def ask(
        self, asking: rescind.admission.Asking, seconds: float = rescind.admission.ADMISSION_SECONDS, *, once: bool = False
    ) -> AdmitResult:
        """As ever, then forget when that was."""
        result = await super().ask(asking, seconds, once=once)
        asking.asked_at = self._clock.monotonic()
        return result
