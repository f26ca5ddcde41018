"""What goes wrong in the ground, as fields. HTTP's view of it is `runtime.problem`.

RuntimeFault
├── Unavailable      a server we need cannot be reached now: 503, try again after `retry_after_seconds`
│   ├── InRecovery   closed until an admin says that the restored state is the one to go on with
│   └── Refused      it answers, and does not let us in: no such database, a wrong password
├── OutcomeUnknown   a COMMIT whose answer was lost: it may stand or not (hazard 6)
├── SettingsError    the environment's settings are wrong: every fault at once
└── MigrationError   the database's schema is not what these files say
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum


class Code(StrEnum):
    """The `code` of a problem. Never changes once released."""

    UNAVAILABLE = "unavailable"
    IN_RECOVERY = "in_recovery"
    OUTCOME_UNKNOWN = "outcome_unknown"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    INVALID = "invalid"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    REQUEST_IN_PROGRESS = "request_in_progress"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    INTERNAL = "internal"


class RuntimeFault(Exception):  # noqa: N818 - named for what it says
    """Root of the tree above."""


class Unavailable(RuntimeFault):
    """A server we need is away. `what` names it: "PostgreSQL", "Redis"."""

    def __init__(self, what: str, detail: str = "", *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(f"{what} is not available{': ' if detail else ''}{detail}")
        self.what = what
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


class InRecovery(Unavailable):
    """What was asked for is closed until an admin says that the restored state is the one to go on with (hazard 5)."""


class Refused(Unavailable):
    """A server that is there refuses the connection: waiting does not help. `detail` ends with the next step."""


class OutcomeUnknown(RuntimeFault):
    """The transaction may have been committed or not; nobody may be told either. The connection is gone (hazard 6)."""


class SettingsError(RuntimeFault):
    """`faults` names every variable that is wrong, and why."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(("the settings are wrong:", *(f"  {fault}" for fault in faults))))
        self.faults = tuple(faults)


class MigrationError(RuntimeFault):
    """The text says which file, and what to do."""
