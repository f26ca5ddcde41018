"""Rescind behind OpenFeature: the same evaluations through the vendor-neutral client (extra `openfeature`).

    client = rescind.Client(service="checkout")
    api.set_provider(RescindProvider(client))
    api.add_hooks([TelemetryHook()])
    api.get_client().get_boolean_value("checkout.new-flow", False, EvaluationContext(user_id))

An evaluation through OpenFeature is remembered as one through the native client is: effects take the variant that their own
request was served, and a request's pin holds (P3). Importing `rescind` alone brings none of this in.
"""

try:
    import openfeature.provider  # noqa: F401
    import opentelemetry._logs  # noqa: F401
except ImportError as missing:
    raise ImportError(
        f"rescind.openfeature needs openfeature-sdk and opentelemetry-api ({missing}): pip install 'rescind[openfeature]'"
    ) from missing

from rescind.openfeature.provider import RescindProvider
from rescind.openfeature.telemetry import TelemetryHook

__all__ = ["RescindProvider", "TelemetryHook"]
