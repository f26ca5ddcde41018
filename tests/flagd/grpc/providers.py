"""The released flagd providers as processes of their own: neither their modules nor their symbols meet ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.node import NODE, environment

SCRIPTS = Path(__file__).parent / "interop"
SECONDS_MAX = 60.0
"""For what takes a moment: it ends a run that would never end."""


class Provider:
    """One provider. `ask` evaluates; `changed` waits for the event that names a flag."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._changed: asyncio.Queue[list[str]] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())

    async def ask(self, key: str, **context: Any) -> tuple[Any, str | None]:
        """Value and variant of a boolean flag; a failure is the default, true, without a variant."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([key, {"targetingKey": "u", **context}]).encode() + b"\n")
        answer = await self.answer()
        return answer["value"], answer["variant"] or None

    async def answer(self) -> dict[str, Any]:
        """The next line that is no event."""
        async with asyncio.timeout(SECONDS_MAX):
            return await self._answers.get()

    async def changed(self, key: str) -> None:
        """Wait for an event that names the flag."""
        async with asyncio.timeout(SECONDS_MAX):
            while key not in await self._changed.get():
                pass

    async def end(self) -> None:
        """It leaves by itself when nobody can ask it any more."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS_MAX):
                await self._process.wait()
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            read = json.loads(line)
            if "changed" in read:
                self._changed.put_nowait(read["changed"])
            else:
                self._answers.put_nowait(read)


@contextlib.asynccontextmanager
async def provider(language: str, node_modules: Path, *arguments: str) -> AsyncIterator[Provider]:
    """A provider that is ready."""
    command = [sys.executable, SCRIPTS / "provider.py"] if language == "python" else [NODE, SCRIPTS / "provider.cjs"]
    process = await asyncio.create_subprocess_exec(
        *command, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env=environment(NODE_PATH=str(node_modules)),
    )  # fmt: skip
    started = Provider(process)
    try:
        assert await started.answer() == {"ready": True}
        yield started
    finally:
        await started.end()
