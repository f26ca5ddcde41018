"""A service of Restate: three no-op steps with compensations. An ASGI application for hypercorn."""

from __future__ import annotations

from typing import Any

import restate

STEPS = ("reserve", "capture", "confirm")
order = restate.Service("order")


async def act(step: str, name: str, fails: bool) -> str:
    if fails:
        raise restate.TerminalError("refused")
    return f"{step}-{name}"


async def undo(step: str, name: str) -> None: ...


@order.handler()
async def run(ctx: restate.Context, asked: dict[str, Any]) -> str:
    """The steps in order; where the last one fails, those before it are undone, the latest first."""
    done: list[str] = []
    try:
        for step in STEPS:
            done.append(step)
            await ctx.run_typed(step, act, step=step, name=asked["order"], fails=asked["fails"] and step == STEPS[-1])
    except restate.TerminalError:
        for step in reversed(done[:-1]):
            await ctx.run_typed(f"undo {step}", undo, step=step, name=asked["order"])
        return "undone"
    return "done"


app = restate.app(services=[order])
