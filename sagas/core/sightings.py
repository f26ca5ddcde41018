"""What a look-up's answer makes of an effect in doubt, as a table one can read (P16, hazard 7). Pure.

A look-up is asked once lease and settle delay of every attempt are over, so that both of its answers are proof: what it found
was done, what it did not find never was. Who cannot say is asked again, as the step's retry policy allows, then a person
decides.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from sagas.core.retry import delay_seconds


class Said(StrEnum):
    """The answers."""

    FOUND = "found"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Then(StrEnum):
    """What comes of one."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ASK_AGAIN = "ask_again"
    GIVE_UP = "give_up"


class Policy(Struct, frozen=True, kw_only=True):
    """How often, and how soon again, somebody is asked who cannot say."""

    first_seconds: float = 1.0
    factor: float = 2.0
    cap_seconds: float = 300.0
    attempts_max: int = 20


class Answer(Struct, frozen=True):
    """What comes of it, and in how many seconds it is asked again."""

    then: Then
    in_seconds: float = 0.0


# fmt: off
MACHINE: dict[Said, tuple[Then, Then]] = {
    #               may be asked again   asked for as often as may be
    Said.FOUND:   (Then.SUCCEEDED,      Then.SUCCEEDED),
    Said.ABSENT:  (Then.FAILED,         Then.FAILED),
    Said.UNKNOWN: (Then.ASK_AGAIN,      Then.GIVE_UP),
}
# fmt: on


def after(said: Said, count: int, policy: Policy, *, chance: float) -> Answer:
    """What comes of an answer after `count` in vain. `chance` is in [0, 1).

    >>> after(Said.UNKNOWN, 1, Policy(attempts_max=2), chance=0).then
    <Then.GIVE_UP: 'give_up'>
    """
    then = MACHINE[said][count + 1 >= policy.attempts_max]
    if then is not Then.ASK_AGAIN:
        return Answer(then)
    delay = delay_seconds(
        count + 1, first_seconds=policy.first_seconds, factor=policy.factor, cap_seconds=policy.cap_seconds, chance=chance
    )
    return Answer(then, delay)
