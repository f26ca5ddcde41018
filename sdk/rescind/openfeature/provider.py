"""`RescindProvider`: an OpenFeature provider over a `rescind.Client` or a `rescind.AsyncClient`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ProviderFatalError, ProviderNotReadyError
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType
from openfeature.hook import Hook
from openfeature.provider import AbstractProvider, Metadata
from openfeature.track import TrackingEventDetails
from opentelemetry._logs import LoggerProvider

from rescind.client import AsyncClient, Client
from rescind.errors import ConfigurationError
from rescind.evaluation.resolution import Resolution
from rescind.openfeature.context import TARGETING_KEY, context_of
from rescind.openfeature.events import Events
from rescind.openfeature.faces import close, wait_ready
from rescind.openfeature.resolution import details_of
from rescind.openfeature.telemetry import emit_tracking, logger_of

logger = logging.getLogger("rescind")

NAME: Final = "rescind"
READY_SECONDS: Final = 5.0


class RescindProvider(AbstractProvider):
    """Resolves flags from the client's snapshot in memory: no network, no waiting, and no exception (P6).

    A killed flag is the off variant with reason STATIC and flag metadata `rescind.killed`; `flagSetId` is the environment and
    `version` the revision. Events: CONFIGURATION_CHANGED with the changed flags' keys as soon as a revision is applied; STALE
    when the stream is lost or the client was closed (the last snapshot still answers), READY when it is back; ERROR where the
    server refuses the token, or there is no snapshot.

    The client belongs to whoever made it: `shutdown` ends the provider's subscriptions and leaves the client running, unless
    `close_client=True`. Several providers, in several domains, may share one client.
    """

    def __init__(
        self,
        client: Client | AsyncClient,
        *,
        hooks: Sequence[Hook] = (),
        ready_seconds: float = READY_SECONDS,
        close_client: bool = False,
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        """`hooks` are the provider's own; `ready_seconds` bounds `initialize`; `logger_provider` is for `track`."""
        super().__init__()
        self._client = client
        self._hooks = list(hooks)
        self._ready_seconds = ready_seconds
        self._close_client = close_client
        self._events = Events(self, client.core)
        self._logger = logger_of(logger_provider)
        self._loop = running_loop() if isinstance(client, AsyncClient) else None

    # --- life ---------------------------------------------------------------------------------------------------------

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        """Start the client and wait until it has a snapshot, at most `ready_seconds`. Subscribes to what happens.

        Raises `ProviderNotReadyError` where there is none yet: READY follows as soon as there is. `ProviderFatalError` for a
        closed client. On the event loop of an `AsyncClient` it cannot wait: there, `await client.wait_ready()` first.
        """
        if self._client.core.closed:
            raise ProviderFatalError("the client was closed")
        self._events.start()
        try:
            ready = wait_ready(self._client, self._loop, self._ready_seconds)
        except ConfigurationError as error:
            raise ProviderNotReadyError(str(error)) from error
        if not ready:
            detail = self._client.core.follower.last_error or "it has not answered yet"
            raise ProviderNotReadyError(f"no snapshot from {self._client.core.settings.url}: {detail}")

    def shutdown(self) -> None:
        """End the subscriptions; with `close_client`, close the client, in two seconds at most."""
        self._events.stop()
        if self._close_client:
            close(self._client, self._loop)

    def get_metadata(self) -> Metadata:
        """The provider's name, `rescind`."""
        return Metadata(name=NAME)

    def get_provider_hooks(self) -> list[Hook]:
        """The hooks given at construction."""
        return self._hooks

    # --- evaluations; the asynchronous ones are the same, for nothing here waits ------------------------------------------

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """A boolean flag."""
        context = context_of(evaluation_context)
        return self._answer(flag_key, self._client.boolean_details(flag_key, default_value, context))

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """A string flag."""
        context = context_of(evaluation_context)
        return self._answer(flag_key, self._client.string_details(flag_key, default_value, context))

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """A whole number; 10.0 is one."""
        context = context_of(evaluation_context)
        return self._answer(flag_key, self._client.integer_details(flag_key, default_value, context))

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """A number."""
        context = context_of(evaluation_context)
        return self._answer(flag_key, self._client.float_details(flag_key, default_value, context))

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        """An object or a list; a copy of its own."""
        context = context_of(evaluation_context)
        return self._answer(flag_key, self._client.object_details(flag_key, default_value, context))

    def track(
        self,
        tracking_event_name: str,
        evaluation_context: EvaluationContext | None = None,
        tracking_event_details: TrackingEventDetails | None = None,
    ) -> None:
        """Emit an OpenTelemetry event `rescind.tracking` into this process's logger provider, and do nothing else.

        Name, value, targeting key and at most 32 plain attributes. Nothing is sent to the Rescind server: what a variant leads
        to is told by `client.track`. Without a logger provider the call has no effect. Never blocks by itself and never raises.
        """
        try:
            context = context_of(evaluation_context)
            details = tracking_event_details or TrackingEventDetails()
            key = context.get(TARGETING_KEY)
            context_id = None if key is None else str(key)
            emit_tracking(self._logger, NAME, tracking_event_name, context_id, details.value, details.attributes)
        except Exception:  # a service must not fail for telemetry
            logger.exception("tracking %s failed", tracking_event_name)

    def _answer(self, flag_key: str, resolution: Resolution) -> FlagResolutionDetails[Any]:
        memory = self._client.core.context.recall(flag_key)
        return details_of(resolution, memory.evaluator if memory is not None else None)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop of this thread, if one runs."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
