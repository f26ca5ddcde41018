"""What people see of retention: the settings, how far each sweep has come, and up to when the history of flags has gone."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from runtime.postgres import Connection
from sagas.retention.history import QUERIES
from sagas.retention.policy import Retention

LISTED_MAX = 1_000


class Sweep(Struct, frozen=True, kw_only=True):
    """One sweep, of the whole installation. `ended_at` null: it never came to its end; before `begun_at`: it is under way."""

    what: str
    begun_at: datetime
    ended_at: datetime | None
    looked: int
    dropped: int
    dropped_ever: int


class Horizon(Struct, frozen=True, kw_only=True):
    """Of a flag: so many effects, admitted until then, were not undone and never will be, for their history has gone."""

    flag: str
    gone_until: datetime
    number: int


class Shown(Struct, frozen=True, kw_only=True):
    """`GET .../retention`."""

    environment: str
    history_days: int | None
    keys_days: int | None
    sweeps: list[Sweep]
    horizons: list[Horizon]


async def shown(connection: Connection, environment: str, retention: Retention) -> Shown:
    """What is to be seen in an environment."""
    sweeps = await connection.fetch(QUERIES.standing, 0.0)
    horizons = await connection.fetch(QUERIES.horizons, environment, LISTED_MAX)
    return Shown(
        environment=environment,
        history_days=retention.history_days,
        keys_days=retention.keys_days,
        sweeps=[Sweep(**{name: row[name] for name in Sweep.__struct_fields__}) for row in sweeps],
        horizons=[Horizon(**dict(row)) for row in horizons],
    )
