"""Making and reading proofs of revisions, with each environment's own key (P2, `flagd.core.proof`)."""

from __future__ import annotations

from rescind import wire

from flagd.core.proof import is_proven, proof_of
from runtime.postgres import Postgres
from runtime.queries import Queries

NOTHING = wire.Revision()

_INSTANCES = Queries.load("flagd", "instances")


class Proofs:
    """Of every environment. Keys are read once, and never change."""

    def __init__(self, pg: Postgres) -> None:
        self._pg = pg
        self._keys: dict[str, bytes] = {}
        self._made: dict[str, tuple[wire.Revision, str]] = {}
        """Of each environment, the one that was asked for last: a fleet asks for the same."""

    async def shown(self, environment: str, beat: wire.InstanceBeat) -> wire.Revision:
        """The revision of which a beat shows a proof; 0.0 where it shows none, or a false one. Raises `Unavailable`."""
        key = await self._key(environment) if beat.proven is not None else None
        if beat.proven is None or key is None or not is_proven(key, environment, beat.proven, beat.proof):
            return NOTHING
        return beat.proven

    async def of(self, environment: str, revision: wire.Revision) -> str:
        """The proof of a revision that there is. Raises `Unavailable`."""
        held = self._made.get(environment)
        if held is None or held[0] != revision:
            key = await self._key(environment)
            held = self._made[environment] = (revision, "" if key is None else proof_of(key, environment, revision))
        return held[1]

    async def _key(self, environment: str) -> bytes | None:
        if environment not in self._keys:
            async with self._pg.connection() as connection:
                text = await connection.fetchval(_INSTANCES.proof_key, environment)
            if text is None:
                return None
            self._keys[environment] = str(text).encode()
        return self._keys[environment]
