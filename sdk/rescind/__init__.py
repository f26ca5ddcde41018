"""Rescind: feature flags whose kill undoes the side effects.

    client = rescind.Client(service="checkout")
    client.boolean("checkout.new-flow", False, {"targetingKey": user_id})

Importing this does no I/O, and brings in no HTTP client: that happens at first use.
Every name is found at its first use (PEP 562): the server and the command line, which need some parts, do not pay for all.
`__init__.pyi` says the same to type checkers.
"""

from importlib import import_module

_HOMES = {
    "AsyncClient": "rescind.client",
    "Client": "rescind.client",
    "Effect": "rescind.effects",
    "current_effect": "rescind.effects",
    "ApiError": "rescind.errors",
    "ClientClosed": "rescind.errors",
    "ConfigurationError": "rescind.errors",
    "EffectCompensated": "rescind.errors",
    "EffectConflict": "rescind.errors",
    "EffectError": "rescind.errors",
    "EffectInProgress": "rescind.errors",
    "EffectKilled": "rescind.errors",
    "EffectRefused": "rescind.errors",
    "EffectTombstoned": "rescind.errors",
    "NotDone": "rescind.errors",
    "RescindError": "rescind.errors",
    "SagaConflict": "rescind.errors",
    "SagaError": "rescind.errors",
    "SagaKilled": "rescind.errors",
    "SagaRefused": "rescind.errors",
    "SagaUndone": "rescind.errors",
    "SagaUnknown": "rescind.errors",
    "Unreachable": "rescind.errors",
    "Explanation": "rescind.evaluation.explanation",
    "Resolution": "rescind.evaluation.resolution",
    "Email": "rescind.executors",
    "Refund": "rescind.executors",
    "Webhook": "rescind.executors",
    "Worker": "rescind.executors",
    "AsyncHandle": "rescind.handles",
    "Handle": "rescind.handles",
    "FlagChange": "rescind.notify",
    "Saga": "rescind.saga",
    "Done": "rescind.sightings",
    "Step": "rescind.saga",
    "Status": "rescind.status",
    "__version__": "rescind.version",
    "Revision": "rescind.wire",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
