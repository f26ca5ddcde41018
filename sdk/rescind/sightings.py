"""What a step's look-up answers about an effect in doubt (P16).

    @capture.look_up
    async def seen(effect: rescind.Effect) -> rescind.Done:
        payment = await payments.find(idempotency_key=effect.provider_key)
        if payment is None:
            raise rescind.NotDone("the provider knows nothing of it")
        return rescind.Done({"id": payment.id})

It runs once the step's lease and settle delay are over, in any worker of the saga, at least once. `Done`: it was done, with
this result. `NotDone`, raised: it provably never was. Anything else, `None` and every other exception as well, is that nobody
can say yet: it is asked again as the step's retry policy allows, then a person decides.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Done(Struct, frozen=True):
    """It was done. `result` is what the step would have returned: what later steps, and undoing it, are given."""

    result: Any = None


class UnsaidError(Exception):
    """A look-up returned neither `Done` nor raised `NotDone`."""


def result_of(answer: object) -> Any:
    """The result of what was done. Raises `UnsaidError` for an answer that says nothing."""
    if isinstance(answer, Done):
        return answer.result
    raise UnsaidError(f"a look-up returns rescind.Done(...) or raises rescind.NotDone, not {type(answer).__name__}")
