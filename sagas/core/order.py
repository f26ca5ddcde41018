"""Which compensations may begin: P14, one per subject, and within what the paces allow. Pure.

Within one saga instance the reverse of actual completion, whichever rollbacks undo it: a compensation is blocked while another
unfinished one, or an effect whose outcome is not known yet, stands later in an instance that it stands in. A merged one stands
in several instances at once, in each where the latest of its effects there was completed. Two merged ones can block each other
in a circle; it is opened at a merged one, a notice and never money (docs/decisions/0004, 0019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

Instance = tuple[str, str]
"""Name of the saga, id of the saga instance."""
Place = tuple[str, str]
"""Kind and connection: what a pace is kept for."""


class Candidate(Struct, frozen=True, kw_only=True):
    """A compensation that is due. `is_open`: merged, and its membership is not fixed yet. `is_busy`: another has its
    subject."""

    id: UUID
    place: Place
    subject: str | None = None
    merged: bool = False
    is_open: bool = False
    is_busy: bool = False


class Stand(Struct, frozen=True, kw_only=True):
    """An unfinished effect of a saga instance; `compensation_id` null while it is undetermined."""

    instance: Instance
    position: datetime
    compensation_id: UUID | None


class Choice(Struct, frozen=True, kw_only=True):
    """`chosen` may begin now, in this order. `orderly`: how many the order alone would let begin, `free`: of these, how
    many have nobody else acting on their subject."""

    chosen: list[Candidate]
    orderly: int = 0
    free: int = 0


def blocked(candidates: Sequence[Candidate], stands: Sequence[Stand]) -> set[UUID]:
    """The candidates that something later in one of their saga instances holds back."""
    latest: dict[tuple[Instance, UUID | None], datetime] = {}
    by_instance: dict[Instance, list[Stand]] = {}
    for stand in stands:
        place = (stand.instance, stand.compensation_id)
        latest[place] = max(latest.get(place, stand.position), stand.position)
        by_instance.setdefault(stand.instance, []).append(stand)
    asked = {candidate.id for candidate in candidates}
    own = [
        (instance, identity, position)
        for (instance, identity), position in latest.items()
        if identity is not None and identity in asked
    ]
    return {
        identity
        for instance, identity, position in own
        if any(other.position > position and other.compensation_id != identity for other in by_instance[instance])
    }


def choose(
    candidates: Sequence[Candidate],
    stands: Sequence[Stand],
    *,
    allowances: Mapping[Place, int],
    limit: int,
) -> Choice:
    """At most `limit` of the candidates, in their order, one per subject and within each place's allowance."""
    held_back = blocked(candidates, stands)
    subjects: set[str] = set()
    left = dict(allowances)
    chosen: list[Candidate] = []
    orderly = free = 0
    for candidate in candidates:
        if candidate.is_open or candidate.id in held_back:
            continue
        orderly += 1
        free += not candidate.is_busy
        if candidate.is_busy or len(chosen) >= limit or left.get(candidate.place, 0) <= 0:
            continue
        if candidate.subject is not None and candidate.subject in subjects:
            continue
        chosen.append(candidate)
        left[candidate.place] -= 1
        if candidate.subject is not None:
            subjects.add(candidate.subject)
    return Choice(chosen=chosen, orderly=orderly, free=free)


def relaxed(candidates: Sequence[Candidate], stands: Sequence[Stand]) -> Candidate | None:
    """The merged compensation at which a circle is opened, or null. To be asked only when nothing runs and nothing may
    begin; where something may meanwhile, there is no circle."""
    held_back = blocked(candidates, stands)
    if any(not c.is_open and c.id not in held_back for c in candidates):
        return None
    return next((c for c in candidates if c.merged and not c.is_open and not c.is_busy), None)
