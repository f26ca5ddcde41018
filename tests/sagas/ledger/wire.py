"""One instance of the SDK, straight on the ledger, whose answers arrive when they are told to, on a clock moved by hand."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
from rescind.admission import Admission
from rescind.bodies import Permission
from rescind.clock import Clock
from rescind.core import Core
from rescind.settings import settings_from
from rescind.transport import AsyncApi
from rescind.wire import AdmitAnswer, AdmitRequest, EffectRequest

from tests.sagas.ledger.world import ANYONE, ENVIRONMENT, World


class HandClock(Clock):
    """A monotonic clock moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at


class Wire(AsyncApi):
    """The way to the ledger and back."""

    def __init__(self, world: World, clock: Clock, folder: Path, admission: type[Admission]) -> None:
        super().__init__("http://127.0.0.1:9", "t", ENVIRONMENT)
        self._world = world
        self.admitted, self.delivers = asyncio.Event(), asyncio.Event()
        settings = settings_from(url=self.url, token="t", environment=ENVIRONMENT, service="shop", state_dir=folder)
        self.core = Core(settings, clock=clock, api=self)
        self.core.permits.go_through(admission(self, clock, settings.instance), self.core.reports)

    async def permit(self) -> Permission:
        """Ask for one effect; the permission, once the answer has arrived."""
        await self.core._learn_name()
        request = EffectRequest(**self._world.item(), token=self.core.clock.token())
        granted = await self.core.permits.permit(request, None)
        assert granted.permission is not None
        return granted.permission

    async def repeatable(self, path: str, body: Any, answer_type: Any, *, timeout_seconds: float) -> Any:
        """The ledger's answer, which has been there for a while."""
        request = AdmitRequest(effects=msgspec.to_builtins(body.effects), instance=body.instance)
        answer: AdmitAnswer = await self._world.ledger.admit(ENVIRONMENT, request, ANYONE)
        self.admitted.set()
        await self.delivers.wait()
        return answer
