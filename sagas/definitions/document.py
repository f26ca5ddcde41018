"""How product teams say what undoes an effect: the documents of sagas and of loose kinds (P15).

A definition is data, pinned by name and version, so that an effect can be undone after the code that did it has been rolled
back. `retry`, `timeout_seconds` and `pace` are tuned beside the version, those of `act` too; everything else is what it means.
Fields beside a step's `act` speak of undoing it, those under it of doing it (docs/decisions/0024).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field
from rescind.wire import Key, Name

Text = Annotated[str, Meta(min_length=1, max_length=65_536)]
Line = Annotated[str, Meta(min_length=1, max_length=998)]
Kind = Annotated[str, Meta(min_length=1, max_length=128)]
Argument = Annotated[str, Meta(min_length=1, max_length=128)]
Seconds = Annotated[float, Meta(ge=0, le=90 * 86_400)]
StepClass = Literal["compensatable", "pivot", "retriable", "irreversible"]
Guarantee = Literal["at_least_once", "at_most_once"]
InDoubt = Literal["look_up", "same_key", "assume_done", "wait"]
ActInDoubt = Literal["again", "look_up", "assume_done", "wait"]
OnKill = Literal["compensate_now", "finish_then_compensate", "finish", "ignore"]
OnDeadline = Literal["undo", "go_on"]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$")]

STEPS_MAX = 64
WAITS_MAX = 64
ARGUMENTS_MAX = 64
AMOUNT_MAX = 10**15
"""In minor units. What is beyond it is a mistake, or meant to do harm: nobody refunds it by itself."""
TUNED = ("retry", "timeout_seconds", "heartbeat_timeout_seconds", "pace", "retention_days")
RetentionDays = Annotated[int, Meta(ge=1, le=3_660)]
"""For how long history is kept after its end; null: for as long as the server is told, which by default is for ever."""


class Refund(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="refund", tag_field="executor", omit_defaults=True
):
    """Gives money back at a Stripe-compatible provider, one refund per effect, under the key `<effect id>:refund`."""

    connection: Name
    reference: Line = "id"
    """The field of the effect's result that names the provider's payment."""


class Email(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="email", tag_field="executor", omit_defaults=True
):
    """Sends a mail. Jinja templates over `effect`, `effects` (all, when merged) and `rollback`."""

    connection: Name
    to: Line
    subject: Line
    body: Text
    dedupe_by: Literal["subject"] | None = None
    """`subject`: one mail per subject of the effects and rollback."""


class Webhook(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="webhook", tag_field="executor", omit_defaults=True
):
    """Posts JSON, signed per Standard Webhooks. Without `body`, the effect's own payload is what is sent."""

    connection: Name
    path: Annotated[str, Meta(max_length=2048)] = ""
    body: Text | None = None
    dedupe_by: Literal["subject"] | None = None


class Worker(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="worker", tag_field="executor", omit_defaults=True
):
    """Calls the team's own handler, in any live worker that serves this version of the saga and step."""

    dedupe_by: Literal["subject"] | None = None


Compensation = Refund | Email | Webhook | Worker


class Retry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How long to wait before attempt n + 1: first, times factor each time, never more than the cap, with full jitter."""

    first_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 1.0
    factor: Annotated[float, Meta(ge=1, le=100)] = 2.0
    cap_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 300.0
    attempts_max: Annotated[int, Meta(ge=1, le=10_000)] = 20
    age_seconds: Annotated[float, Meta(gt=0, le=90 * 86_400)] | None = None
    """No attempt is laid down to begin later than this after the first; null is no limit of its own."""


class Pace(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Limits across all coordinators and rollbacks (P17); null is no limit of its own."""

    per_second: Annotated[float, Meta(gt=0, le=100_000)] | None = None
    concurrency_max: Annotated[int, Meta(ge=1, le=10_000)] | None = None


class _Undoing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a step and a loose kind have in common: how one effect is done once and how it is undone."""

    kind: Kind
    step_class: StepClass = field(default="compensatable", name="class")
    guarantee: Guarantee | None = None
    """Of the compensation. Null reads as the executor's own: at most once for mail, else at least once (P13)."""
    compensation: Compensation | None = None
    """Null: after a kill a person decides about each effect."""
    notice: Compensation | None = None
    """Told about what cannot be undone, once `notice_approved` says so beforehand or a person does."""
    notice_approved: bool = False
    in_doubt: InDoubt | None = None
    """Null reads as `look_up` where the executor can (refund) or the step is looked up (`act`), else `wait` for a person (P16).
    `same_key` is known and refused: nothing here repeats a team's own request (hazard 7)."""
    settle_seconds: Seconds = 5.0
    """How long after its lease an effect without an outcome is left alone before it is judged."""
    provider_window_seconds: Seconds = 86_400.0
    """How long the provider recognises a key: no automatic re-send after it."""
    amount: Line | None = None
    """The payload field with the amount in minor units, where a payload has it. Null reads as `amount_cents`; a compensation
    by e-mail moves no money and has no default."""
    currency: Line | None = None
    """The payload field with the currency, null reads as `currency`; or, for all alike, `currency_code`."""
    currency_code: Annotated[str, Meta(pattern="^[A-Za-z]{3}$")] | None = None
    independent: bool = False
    """Not taken along when another effect of its saga instance is killed."""
    lease_seconds: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    retry: Retry = Retry()
    timeout_seconds: Annotated[float, Meta(gt=0, le=600)] = 10.0
    heartbeat_timeout_seconds: Annotated[float, Meta(gt=0, le=3600)] | None = None
    """A worker's handler that does not say for so long that it lives is cancelled, and its attempt is in doubt."""
    pace: Pace = Pace()
    proof_of_failure: Annotated[list[Line], Meta(max_length=64)] = []
    """Names of the errors that prove that nothing was done (P10)."""

    def __post_init__(self) -> None:
        undo = self.compensation or self.notice
        if self.guarantee is None:
            _fill(self, "guarantee", "at_most_once" if isinstance(undo, Email) else "at_least_once")
        if self.in_doubt is None:
            _fill(self, "in_doubt", "look_up" if isinstance(self.compensation, Refund) else "wait")
        if self.amount is None and not isinstance(self.compensation, Email):
            _fill(self, "amount", "amount_cents")
        if self.amount is not None and self.currency is None and self.currency_code is None:
            _fill(self, "currency", "currency")

    def money(self, payload: Mapping[str, Any]) -> tuple[int | None, str | None]:
        """Amount in minor units and upper-case currency of an effect with this payload; null where it names none, and a
        number that no amount can be names none."""
        amount = payload.get(self.amount) if self.amount else None
        if isinstance(amount, bool) or not isinstance(amount, int) or not 0 <= amount <= AMOUNT_MAX:
            return None, None
        currency = self.currency_code or (payload.get(self.currency) if self.currency else None)
        return amount, currency.upper() if isinstance(currency, str) else None


def _fill(of: Struct, name: str, value: str) -> None:
    msgspec.structs.force_setattr(of, name, value)


class Act(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a step is done, by `client.run` and `client.start`."""

    guarantee: Guarantee = "at_least_once"
    """Whether the step may be begun again under its key when its outcome is not known."""
    in_doubt: ActInDoubt | None = None
    """Null reads as `again`, under the same key, while the provider's window lasts; of what is done at most once as `wait`.
    `look_up`: a worker's look-up says what became of it, asked as often as `retry` allows; its undoing asks the same."""
    retry: Retry = Retry()
    timeout_seconds: Annotated[float, Meta(gt=0, le=3600)] = 10.0
    """The function is cancelled after it; the step is then in doubt."""
    heartbeat_timeout_seconds: Annotated[float, Meta(gt=0, le=3600)] | None = None
    """The function is cancelled when it has not said for so long that it lives; the step is then in doubt."""
    pace: Pace = Pace()
    """Per kind and connection of what undoes it, over all workers; beside the pace of its undoing."""

    def __post_init__(self) -> None:
        if self.in_doubt is None:
            _fill(self, "in_doubt", "again" if self.guarantee == "at_least_once" else "wait")


class StepDefinition(_Undoing, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One step of a saga."""

    name: Name
    key: Line
    """Template of the idempotency key over the saga's input, as in `capture:{order_id}`."""
    arguments: Annotated[list[Argument], Meta(max_length=ARGUMENTS_MAX)] = []
    """What it is given, by name: the result of an earlier step of that name, what an event brought that was waited for before
    it, else the input's value. Without any: nothing."""
    group: Name | None = None
    """Neighbours that name the same group run beside each other."""
    act: Act = Act()

    def __post_init__(self) -> None:
        if self.in_doubt is None and self.act.in_doubt == "look_up":
            _fill(self, "in_doubt", "look_up")
        super().__post_init__()


class Wait(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an instance waits for before a step, and before all of the step's group; several one after another. Exactly one of
    `delay_seconds`, `event` and `approval` says what."""

    name: Name
    before: Name
    delay_seconds: Annotated[float, Meta(gt=0, le=366 * 86_400)] | None = None
    event: bool = False
    """Until the event of this name is told."""
    approval: bool = False
    """Until a person agrees; one who refuses turns the instance back."""
    deadline_seconds: Annotated[float, Meta(gt=0, le=366 * 86_400)] | None = None
    on_deadline: OnDeadline = "undo"

    @property
    def whats(self) -> list[Literal["delay", "event", "approval"]]:
        """What it says that it waits for; of a sound one there is one."""
        said: list[Literal["delay", "event", "approval"]] = ["delay"] if self.delay_seconds is not None else []
        return said + (["event"] if self.event else []) + (["approval"] if self.approval else [])


class SagaDefinition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A product team's named, versioned list of steps."""

    saga: Name
    version: Name
    flag: Key
    steps: Annotated[list[StepDefinition], Meta(min_length=1, max_length=STEPS_MAX)]
    description: Annotated[str, Meta(max_length=4096)] = ""
    waits: Annotated[list[Wait], Meta(max_length=WAITS_MAX)] = []
    on_kill: OnKill = "compensate_now"
    """Of running instances when the flag is killed: compensate_now stops them and undoes what they did, but for those past
    their pivot, which go on first, as all of finish_then_compensate do (P8). finish and ignore are known and refused."""
    ordered_by_subject: bool | Name = False
    """Instances of one subject run one after another, in the order in which they were started; each has to have a subject. A
    name: in one line with those of the saga of that name, and of all that name it."""
    retention_days: RetentionDays | None = None
    approve_above: dict[Currency, Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]] = {}
    """In minor units per currency: what is more is given back only once a person agrees, by `retry` (P17)."""

    @property
    def line(self) -> str | None:
        """The line in which its instances stand, null where they run beside each other."""
        if isinstance(self.ordered_by_subject, str):
            return self.ordered_by_subject
        return self.saga if self.ordered_by_subject else None

    def step(self, name: str | None) -> StepDefinition | None:
        """The step of this name, or null."""
        return next((step for step in self.steps if step.name == name), None)

    def events_before(self, step: StepDefinition) -> set[str]:
        """The events that were waited for when this step begins."""
        begun = self.steps[: self.steps.index(step) + 1]
        before = {one.name for one in begun} | {one.name for one in self.steps if step.group and one.group == step.group}
        return {wait.name for wait in self.waits if wait.event and wait.before in before}


class KindDefinition(_Undoing, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How effects of one kind are undone that belong to no saga: one step's format, with a version."""

    version: Name
    key: Line | None = None
    retention_days: RetentionDays | None = None
    description: Annotated[str, Meta(max_length=4096)] = ""


Definition = SagaDefinition | KindDefinition


def semantics_hash(definition: Definition) -> bytes:
    """32 bytes that are equal for two documents of one meaning: defaults written out or not, tuned differently or not."""
    document = msgspec.to_builtins(definition)
    document.pop("description", None)
    for part in (document, *document.get("steps", [])):
        for name in TUNED:
            part.pop(name, None)
    for step, part in zip(getattr(definition, "steps", ()), document.get("steps", ()), strict=True):
        part.pop("arguments", None)
        part.pop("act", None)
        if meant := _meant(step.act):
            part["act"] = meant
    return hashlib.sha256(msgspec.json.encode(document, order="deterministic")).digest()


def _meant(act: Act) -> dict[str, str]:
    """What is not tuned of it, where it is not the default."""
    default, said = Act(), ("guarantee", "in_doubt")
    return {name: getattr(act, name) for name in said if getattr(act, name) != getattr(default, name)}


def arguments_of(definition: Definition) -> dict[str, list[str]]:
    """What its steps are given, by step, where they say it. Not part of the meaning's hash: a release before them knew none."""
    steps = definition.steps if isinstance(definition, SagaDefinition) else []
    return {step.name: step.arguments for step in steps if step.arguments}


def encode(definition: Definition) -> dict[str, Any]:
    """The document as plain values, defaults left out: what is stored and answered."""
    document: dict[str, Any] = msgspec.to_builtins(definition)
    return document
