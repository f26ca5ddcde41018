"""What the SDK raises. Evaluation raises nothing, ever (P6); effects and calls to the server do.

RescindError
├── ConfigurationError      no URL, no token, or a face used in a way that cannot work
├── ClientClosed            the client was closed
├── ApiError                the server answered with a problem (RFC 9457)
├── Unreachable             no usable answer within the time that was given
├── NotDone                 raised by your code in an effect's body: it provably did not happen
├── SagaError               of one saga instance
│   ├── SagaUndone          it failed or was cancelled, and what it had done is undone
│   ├── SagaKilled          a kill stopped it: nothing was begun, or the kill undoes what it had done, unless lifted before
│   ├── SagaConflict        its id is taken by another input or version
│   ├── SagaUnknown         there is no such instance
│   └── SagaRefused         it could not be started as it was asked for
└── EffectError             an effect was not admitted; the body has not run
    ├── EffectKilled        its flag was killed: evaluate again, take the old path
    ├── EffectInProgress    another holder of the key has the right to act, or its outcome is not known yet
    ├── EffectConflict      the key was used with another payload, or under another flag
    ├── EffectCompensated   it was done, and is undone or about to be
    │   └── EffectTombstoned    it was closed for ever before it was done
    └── EffectRefused       an unknown flag or an invalid effect
"""

from __future__ import annotations

from typing import Any

from rescind.wire import Fault


class RescindError(Exception):
    """The root of everything raised here."""


class ConfigurationError(RescindError):
    """The client was set up or used in a way that cannot work; the message says what to change."""


class ClientClosed(RescindError):  # noqa: N818
    """`close()` was called: nothing is admitted any more."""


class ApiError(RescindError):
    """The server refused, as problem+json. `errors` holds every fault of a refused document with its JSON pointer."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        title: str = "",
        errors: list[Fault] | None = None,
        suggestion: str | None = None,
        next_step: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail or title}")
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.errors = errors or []
        self.suggestion = suggestion
        self.next_step = next_step
        self.retry_after_seconds = retry_after_seconds

    @property
    def passing(self) -> bool:
        """Whether asking again later may well be answered: 408, 425, 429 and every 5xx."""
        return self.status in (408, 425, 429) or self.status >= 500

    @property
    def blames_body(self) -> bool:
        """Whether it is about what was sent, so that a part of it may well be taken: 400, 413, 422."""
        return self.status in (400, 413, 422)


class Unreachable(RescindError):  # noqa: N818
    """The server could not be reached, or not in time. What was asked may or may not have arrived."""


class NotDone(RescindError):  # noqa: N818
    """Raise it in the body of an effect to say that it provably did not happen: the key may be used again (P10).

    In a step of a saga, `final` says that trying again will not help: the instance turns back at once.
    """

    def __init__(self, *arguments: object, final: bool = False) -> None:
        super().__init__(*arguments)
        self.final = final


class SagaError(RescindError):
    """Of the instance `id` of `saga`. `cause` says why, as far as it is known: `step`, `reason`, `error`."""

    def __init__(self, message: str, *, saga: str, id: str, cause: dict[str, Any] | None = None) -> None:  # noqa: A002
        super().__init__(f"saga {saga} {id!r}: {message}")
        self.saga = saga
        self.id = id
        self.cause: dict[str, Any] = cause or {}


class SagaUndone(SagaError):  # noqa: N818
    """It failed or was cancelled, and each of its effects is undone, or never happened (P14)."""


class SagaKilled(SagaError):  # noqa: N818
    """A kill stopped it: evaluate again and take the old path. The kill's rollback undoes what it had done; lifted before it
    took anything, the instance goes on after all. Who goes another way for the same order cancels it first: that is kept."""


class SagaConflict(SagaError):  # noqa: N818
    """The id is taken: it was started with another input or another version."""


class SagaUnknown(SagaError):  # noqa: N818
    """There is no such instance."""


class SagaRefused(SagaError):  # noqa: N818
    """It could not be started as it was asked for; `cause` holds code, detail and pointer."""


class EffectError(RescindError):
    """An effect was not admitted. `kind`, `key` and `flag` are as they were asked for."""

    def __init__(self, message: str, *, kind: str, key: str, flag: str, detail: dict[str, Any] | None = None) -> None:
        super().__init__(f"effect {kind} {key!r} under {flag}: {message}")
        self.kind = kind
        self.key = key
        self.flag = flag
        values = detail or {}
        self.effect_id: str | None = values.get("effect_id")
        self.effect_status: str | None = values.get("effect_status")
        self.compensation: str | None = values.get("compensation")
        self.off_variant: str | None = values.get("off_variant")
        self.rollback_id: str | None = values.get("rollback_id")
        self.retry_after_ms: int | None = values.get("retry_after_ms")
        self.error: dict[str, Any] = values.get("error") or {}


class EffectKilled(EffectError):  # noqa: N818
    """The flag is killed for this effect. Evaluate again and take the old path: its effects are always admitted (P8)."""


class EffectInProgress(EffectError):  # noqa: N818
    """Someone else holds the key, or its outcome is in doubt (P9). `retry_after_ms` says when to look again."""


class EffectConflict(EffectError):  # noqa: N818
    """The key names another effect: other payload, or another flag while that one is open (P9)."""


class EffectCompensated(EffectError):  # noqa: N818
    """Done once, and undone or about to be: never replayed as a success (P9)."""

    tombstoned = False


class EffectTombstoned(EffectCompensated):
    """Closed for ever before it was done: a late start is refused, not welcomed (P16)."""

    tombstoned = True


class EffectRefused(EffectError):  # noqa: N818
    """The server does not know the flag, or the effect is malformed; `error` holds code, detail and pointer."""
