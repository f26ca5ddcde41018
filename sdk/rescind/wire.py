"""Messages between SDK, command line and server: frozen Structs, read tolerantly (P21).

Unknown fields are ignored and missing ones defaulted, so that a peer one minor version older or newer is understood.
Instants travel as RFC 3339 in UTC, durations in the unit their name ends with, revisions as `Revision`.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct, field

HEADER = "rescind-revision"
BAGGAGE_KEY = "rescind.rev"
OFF = "off"

Key = Annotated[str, Meta(min_length=1, max_length=255)]
Name = Annotated[str, Meta(min_length=1, max_length=128, pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Revision(Struct, frozen=True, order=True, array_like=True):
    """A point in an environment's history: ordered as a pair, the generation first (P2)."""

    generation: int = 0
    n: int = 0

    def __str__(self) -> str:
        return f"{self.generation}.{self.n}"

    @classmethod
    def parse(cls, text: str) -> Revision:
        """Read `<generation>.<n>`. Raises `ValueError` for anything else, longer than 40 characters or negative."""
        generation, dot, n = text.partition(".")
        if len(text) > 40 or not dot or not generation.isdecimal() or not n.isdecimal():
            raise ValueError(f"not a revision: {text[:40]!r}")
        return cls(int(generation), int(n))

    @classmethod
    def of(cls, value: Revision | str | int) -> Revision:
        """Read the forms in which people write a revision: the pair, "generation.n", or a bare n of generation 1."""
        match value:
            case Revision():
                return value
            case int():
                return cls(1, value)
            case str():
                return cls.parse(value)


# --- flags -----------------------------------------------------------------------------------------------------------


class Prerequisite(Struct, frozen=True, kw_only=True):
    """The flag is served only where `flag` serves `variant`; everyone else gets its off variant."""

    flag: Key
    variant: str


class Flag(Struct, frozen=True, kw_only=True):
    """A flag as teams write it: flagd's own definition, and what flagd has no field for."""

    key: Key
    definition: dict[str, Any]
    """A flagd flag object: state, variants, defaultVariant, targeting, metadata."""
    kind: str = "release"
    owner: str = ""
    services: list[str] = []
    tier: int | None = None
    off_variant: str = OFF
    reversibility: str = "unknown"
    max_staleness_seconds: float | None = None
    description: str = ""
    tags: list[str] = []
    expires_at: datetime | None = None
    effect_attributes: list[str] = []
    """The context attributes that effects under this flag record, so that a narrowed kill can judge them."""
    on_unreachable: Literal["refuse", "proceed"] = "refuse"
    prerequisites: list[Prerequisite] = []
    """All of them must hold. Compiled into the definition that is evaluated, in plain flagd terms (P7)."""
    requires_declaration: bool = False
    """It is not turned on before every live instance of its `services` has declared support for it."""


class Kill(Struct, frozen=True, kw_only=True):
    """A standing kill, as SDKs see it. `closes_epoch` and every epoch before it are dead within `scope`."""

    rollback_id: str
    off_variant: str
    closes_epoch: int
    revision: Revision
    scope: dict[str, Any] = {}


class SnapshotFlag(Struct, frozen=True, kw_only=True):
    """A flag as it is evaluated: the definition already carries the overlay of unscoped kills, in plain flagd terms (P7).

    Scoped kills are laid by the evaluator, from `kills`.
    """

    definition: dict[str, Any]
    off_variant: str = OFF
    epoch: int = 1
    kills: list[Kill] = []
    max_staleness_seconds: float | None = None
    effect_attributes: list[str] = []
    on_unreachable: str = "refuse"
    services: list[str] = []
    laid: int = 0
    """How many steps of its `if`, tests and values, prerequisites laid before those that were written."""


class Snapshot(Struct, frozen=True, kw_only=True):
    """Everything an instance evaluates, at one revision. Immutable."""

    environment: str
    revision: Revision
    flags: dict[str, SnapshotFlag] = {}
    evaluators: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    bucketing: str = "v3"
    """The generation of bucketing that `fractional` hashes by: "v2" or "v3"."""


class Change(Struct, frozen=True, kw_only=True):
    """What one revision changed: applies to a snapshot at exactly `previous`, otherwise a full one is fetched."""

    environment: str
    previous: Revision
    revision: Revision
    flags: dict[str, SnapshotFlag] = {}
    removed: list[str] = []
    kill: bool = False
    """A kill is among them: instances acknowledge at once, with the effects they have begun."""


class Heartbeat(Struct, frozen=True, kw_only=True):
    """`event: heartbeat` on the stream, every `interval_seconds`: the peer is alive and at this revision."""

    revision: Revision
    interval_seconds: float = 5.0
    age_seconds: float = 0.0
    """How long ago the peer last knew that this was the newest revision there is."""


# --- instances -------------------------------------------------------------------------------------------------------


class InstanceBeat(Struct, frozen=True, kw_only=True):
    """`POST /heartbeats`: which revision an instance has applied, and how. Sent at once after a kill."""

    instance: str
    service: str
    revision: Revision
    how: str = "push"
    """push, poll, catch-up, reply, staleness, start"""
    begun: list[str] | None = None
    """After a kill: ids of the effects of killed flags whose bodies have begun. Every other permission of this instance is
    given back. Null with ordinary beats."""
    sdk_version: str = ""
    service_version: str = ""
    signing_off: bool = False
    journal_open: bool = False
    """Holds outcomes or `proceed` records that the server has not got yet."""
    obeys_staleness: bool = False
    """Serves the off variant of a flag whose staleness limit has run out: cut off, it contains a kill by itself (P6)."""
    applied_ago_ms: float | None = None
    """How long ago it applied the revision, on its monotonic clock: its wall clock plays no part."""
    declared: list[str] | None = None
    """The flags that its code supports; null where the server has them on record already."""
    proven: Revision | None = None
    """The newest revision of which it holds a `proof`."""
    proof: str = ""
    """What the server answered an earlier beat with, and nobody else can make: there was such a revision (P2)."""
    proceeds: bool = False
    """Acts on `on_unreachable: proceed`: cut off, it may hold records."""
    adopted: list[str] = []
    """Instances that are gone, whose records this one took over and has delivered: nothing of theirs is left on its disk."""


class InstanceBeatAnswer(Struct, frozen=True, kw_only=True):
    revision: Revision
    interval_seconds: float = 5.0
    declared_count: int | None = None
    """How many declared flags of this instance are on record; null from a server that keeps none."""
    proven: Revision | None = None
    """The revision that was acknowledged, where the server has it."""
    proof: str = ""
    """Of `proven`, for the next beat to show."""


# --- counts ----------------------------------------------------------------------------------------------------------

COUNTS_WINDOW_SECONDS = 10
"""Windows end where the server's clock is at a multiple of it."""
COUNTED_BYTES_MAX = 255
"""Of the name of a flag, a variant, a reason or a service in a count."""


def is_countable(text: object, bytes_max: int = COUNTED_BYTES_MAX) -> bool:
    """Whether it may stand in a count: a text, not too long in UTF-8, no control characters, no halves of surrogates."""
    return isinstance(text, str) and (not text or (text.isprintable() and len(text.encode()) <= bytes_max))


class EvaluationCount(Struct, frozen=True, kw_only=True):
    """How often a flag served a variant for a reason. An empty variant is the caller's default, an empty flag the rest."""

    flag: str
    variant: str = ""
    reason: str = ""
    count: int = 0


class OutcomeCount(Struct, frozen=True, kw_only=True):
    """What a flag's variant led to. An empty variant is not known."""

    flag: str
    variant: str = ""
    ok: int = 0
    failed: int = 0
    durations: list[tuple[int, int]] = []
    """(bucket of `rescind.durations`, how many), of those that said how long they took."""


class CountsWindow(Struct, frozen=True, kw_only=True):
    """What one process counted in one window. `sequence` rises within its run: a repeat is known by it."""

    sequence: int
    ended_ms_ago: int
    """Since the window's end, by the sender's monotonic clock as it sends; negative where it ends later."""
    evaluations: list[Any] = []
    """Each an `EvaluationCount`."""
    outcomes: list[Any] = []
    """Each an `OutcomeCount`."""


class CountsRequest(Struct, frozen=True, kw_only=True):
    """`POST /counts`: windows of one process, the oldest first."""

    run: str
    service: str
    windows: list[Any] = []
    """Each a `CountsWindow`."""
    instance: str = ""


class CountsAnswer(Struct, frozen=True, kw_only=True):
    """`next_window_in_ms`: until the present window ends by the server's clock, for the sender to end its own by."""

    next_window_in_ms: int | None = None
    window_seconds: int = COUNTS_WINDOW_SECONDS
    taken: int = 0
    """Windows that were not known yet; the others were repeats, or too old."""


# --- effects ---------------------------------------------------------------------------------------------------------


class SagaReference(Struct, frozen=True, kw_only=True):
    name: str
    version: str
    id: str


class EffectRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One effect that asks to be admitted. `variant` missing counts as not served the off variant."""

    key: Annotated[str, Meta(min_length=1, max_length=512)]
    kind: Annotated[str, Meta(min_length=1, max_length=128)]
    flag: Key
    payload: dict[str, Any]
    variant: str | None = None
    revision: Revision | str | int = Revision()
    attributes: dict[str, Any] = {}
    saga: SagaReference | None = None
    step: str | None = None
    kind_version: str | None = None
    """The version of the loose kind's definition, for an effect outside a saga."""
    subject: str | None = None
    lease_seconds: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    token: str | None = None
    """Of an earlier ask for the same start: a repeat is answered with the same token (a lost reply costs nothing)."""
    by_key: bool = False
    """Name a new effect by its key (`effect_name`), as whoever proceeds without the server has to."""


class AdmitRequest(Struct, frozen=True, kw_only=True):
    effects: list[Any]
    """Each read as `EffectRequest` on its own: one bad item, and be it no object, never fails the batch."""
    instance: str = ""


Outcome = Literal[
    "admitted", "replayed", "in_progress", "killed", "conflict", "compensated", "tombstoned", "unknown_flag", "invalid"
]


class AdmitResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    outcome: Outcome
    effect_id: str | None = None
    token: str | None = None
    epoch: int | None = None
    attempt: int | None = None
    start_within_ms: int | None = None
    """The start window, counted by the SDK's monotonic clock from before it asked."""
    held_ms: int | None = None
    """How long the server held the request; added to the window."""
    result: Any = None
    effect_status: str | None = None
    """What is recorded of the key: admitted, succeeded, failed, in_doubt."""
    compensation: str | None = None
    """due, held, none or done, where the outcome is killed, compensated or tombstoned."""
    off_variant: str | None = None
    rollback_id: str | None = None
    retry_after_ms: int | None = None
    error: dict[str, Any] | None = None
    """For invalid and unknown_flag: `code`, `detail`, `pointer`."""


class AdmitAnswer(Struct, frozen=True, kw_only=True):
    results: list[AdmitResult]


class EffectReport(Struct, frozen=True, kw_only=True):
    effect_id: str
    token: str
    outcome: Literal["succeeded", "failed", "unknown", "begun", "not_started", "extend"]
    """succeeded, failed (proven not done), unknown (in doubt); and not outcomes but news of the body: begun, not_started
    (permission given back), extend (the lease, by `lease_seconds`)."""
    result: Any = None
    error: dict[str, Any] | None = None
    lease_seconds: float | None = None
    traceparent: str | None = None
    """the span in which it was done (W3C Trace Context): the span that undoes it links to it"""


class ReportRequest(Struct, frozen=True, kw_only=True):
    reports: list[Any]
    """Each read as `EffectReport` on its own."""
    instance: str = ""


class ReportResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    outcome: Literal["recorded", "evidence", "killed", "unknown_effect", "invalid"]
    """recorded; evidence (an old attempt's token, kept beside); killed (recorded, and it will be compensated)."""
    error: dict[str, Any] | None = None


class ReportAnswer(Struct, frozen=True, kw_only=True):
    results: list[ReportResult]


class ProceededEffect(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An effect that was begun without the server, from its line in a journal (P10, P11). `request` has its token."""

    effect_id: str
    """The name under which it was done: the key that the provider was given."""
    request: EffectRequest
    epoch: int = 0
    """Of the flag, as its instance knew it."""
    instance: str = ""
    at: float = 0.0
    """When the line was written, in seconds by the clock of its machine."""
    ended_at: float | None = None
    outcome: Literal["succeeded", "failed", "unknown", "not_started"] | None = None
    """Null while the body runs; unknown where nobody is left to say."""
    result: Any = None
    error: dict[str, Any] | None = None


class ProceededRequest(Struct, frozen=True, kw_only=True):
    """`POST /effects:proceeded`, answered with a `ReportAnswer`. May be repeated."""

    effects: list[Any]
    """Each read as `ProceededEffect` on its own."""
    instance: str = ""
    now: float = 0.0
    """By the clock of `at`: how long ago something was is all that is believed of it."""


# --- workers ---------------------------------------------------------------------------------------------------------


class TaskClaim(Struct, frozen=True, kw_only=True):
    """`POST /tasks:claim`: a worker of a saga asks for compensations to carry out, and since 0.2 for steps to act."""

    worker: str
    saga: str
    versions: list[str]
    steps: list[str]
    """whose effects it can undo"""
    acts: list[str] = []
    """the steps that it can act; their tasks have `verb: act`"""
    look_ups: list[str] = []
    """the steps whose outcome it can look up; their tasks have `verb: look_up`"""
    instance: str | None = None
    """the caller's id of the one instance it serves: of `client.run`"""
    continues: bool = False
    """it begins steps that a kill let go on by name (`Task.continued`), though it knows of the kill"""
    limit: Annotated[int, Meta(ge=1, le=256)] = 16
    wait_seconds: Annotated[float, Meta(ge=0, le=30)] = 10.0
    lease_seconds: Annotated[float, Meta(gt=0, le=3600)] = 30.0


class Task(Struct, frozen=True, kw_only=True):
    """One act for a worker: a compensation (`verb: undo`), whose `effects` are what it undoes, with payload and recorded
    result; or a step (`verb: act`), whose one effect was admitted for it: `id` is the effect's, its payload the step's
    arguments; or a question (`verb: look_up`), what became of its one effect, which is in doubt."""

    id: str
    token: str
    saga: str
    version: str
    step: str
    attempt: int
    action_key: str
    """Hand it to the provider as its idempotency key: the compensation runs at least once under it (P13)."""
    effects: list[dict[str, Any]]
    lease_seconds: float
    verb: str = "undo"
    instance: str | None = None
    """the caller's id of the saga instance, of a step"""
    start_within_ms: int | None = None
    """of a step: its permission to begin, counted from before it was asked for (P8)"""
    held_ms: int | None = None
    timeout_seconds: float | None = None
    """of a step: the body is cancelled after it, and is then in doubt"""
    heartbeat_timeout_seconds: float | None = None
    """so long the body may be silent: then it is cancelled, and in doubt"""
    traceparent: str | None = None
    """of the instance, where it was started under a trace"""
    continued: bool = False
    """of a step: its flag is killed, and the kill lets this instance go on by name (P8)"""


class TaskClaimAnswer(Struct, frozen=True, kw_only=True):
    tasks: list[Task]


class TaskReport(Struct, frozen=True, kw_only=True):
    id: str
    token: str
    outcome: Literal["succeeded", "failed", "unknown", "not_started"]
    """not_started: of a step, its permission to begin is given back. Of a look-up: succeeded, it was done; failed, it provably
    never was; unknown, nobody can say yet"""
    proof: Any = None
    """what undoing it proved; of a step, or of a look-up that found it done, its result"""
    error: dict[str, Any] | None = None
    verb: str = "undo"
    final: bool = False
    """of a failed step, or of a look-up that says so of it: trying again will not help"""
    traceparent: str | None = None
    """of a step, the span in which it was done"""


class TaskReportRequest(Struct, frozen=True, kw_only=True):
    worker: str
    reports: list[TaskReport]
    claim: TaskClaim | None = None
    """what to hand out with the answer; it is not waited for"""


class TaskReportAnswer(Struct, frozen=True, kw_only=True):
    results: list[Literal["recorded", "lost"]]
    """lost: the lease had run out and another holds the task; the proof is kept as evidence."""
    tasks: list[Task] = []


class TaskHeartbeat(Struct, frozen=True, kw_only=True):
    worker: str
    tasks: list[str]
    """`<id>:<token>` of each one held; each is extended by `lease_seconds`."""
    lease_seconds: float = 30.0


# --- saga instances --------------------------------------------------------------------------------------------------


class InstanceStart(Struct, frozen=True, kw_only=True):
    """One run of a saga to begin. `id` is the caller's and unique per saga: starting it again answers with what there is."""

    id: str
    version: str
    input: dict[str, Any] = {}
    variant: str | None = None
    """that its flag was served where it began; without one it counts as not served the off variant"""
    revision: str = ""
    subject: str | None = None
    attributes: dict[str, Any] = {}
    run_by: str | None = None
    """the worker that alone serves it, of `client.run`"""
    lease_seconds: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    traceparent: str | None = None


class InstanceStartRequest(Struct, frozen=True, kw_only=True):
    """`POST /sagas/{name}/instances:start`; `POST /sagas/{name}/instances` takes one `InstanceStart` by itself."""

    instances: list[Any]
    """Each read as `InstanceStart` on its own."""
    claim: TaskClaim | None = None


StartOutcome = Literal["started", "exists", "conflict", "killed", "invalid"]


class InstanceStarted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """conflict: the id is taken by other input or another version. killed: its flag is; nothing was begun."""

    outcome: StartOutcome
    state: str | None = None
    error: dict[str, Any] | None = None


class InstanceStartAnswer(Struct, frozen=True, kw_only=True):
    results: list[InstanceStarted]
    tasks: list[Task] = []


class InstanceState(Struct, frozen=True, kw_only=True):
    """Where an instance stands: running, undoing, waiting (for a person), killed, done, undone."""

    id: str
    state: str
    result: Any = None
    """of a done one: the results of its steps by name"""
    reason: str | None = None
    error: dict[str, Any] | None = None
    """what made it turn back, or wait"""


class InstanceAwait(Struct, frozen=True, kw_only=True):
    """`POST /sagas/{name}/instances:await`: where these stand, as soon as one has ended, else after `wait_seconds`."""

    ids: list[str]
    wait_seconds: Annotated[float, Meta(ge=0, le=30)] = 10.0


class InstanceAwaitAnswer(Struct, frozen=True, kw_only=True):
    ended: list[InstanceState]
    """those of them that are done, undone or killed, or wait for a person"""
    unknown: list[str] = []


# --- errors ----------------------------------------------------------------------------------------------------------


class Fault(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fault of a refused document. `pointer` is an RFC 6901 JSON pointer into it."""

    pointer: str
    detail: str
    code: str = "invalid"


class ProblemBody(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457 `application/problem+json`."""

    type: str = "about:blank"
    title: str = ""
    status: int = 500
    detail: str = ""
    code: str = "internal"
    errors: list[Fault] = field(default_factory=list)
    suggestion: str | None = None
    next_step: str | None = None


def effect_name(environment: str, kind: str, key: str) -> UUID:
    """The id of an effect that is named by its key: the same wherever and whenever it is asked for, with no server at hand.

    UUID version 8 (RFC 9562, 5.8): SHA-256, the first byte zero, so that such ids stand before all that carry a time.

    >>> effect_name("production", "payment.capture", "capture:1")
    UUID('004277e6-90d1-84ba-a1d9-d121ebe4cd89')
    """
    text = msgspec.json.encode([environment, kind, key])
    number = int.from_bytes(hashlib.sha256(text).digest()[:16], "big") & ~(0xFF << 120 | 0xF << 76 | 0b11 << 62)
    return UUID(int=number | 8 << 76 | 0b10 << 62)


def encode(value: object) -> bytes:
    """JSON bytes of a message. `decode` of the peer's type reads them back."""
    return msgspec.json.encode(value)
