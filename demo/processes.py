"""Processes of the demo: started with a free hand, and gone when it ends, however it ends.

Each child is told by the kernel when its parent dies (PR_SET_PDEATHSIG, where there is one) and holds the reading end of a
pipe that closes with the parent; an orderly end asks first and kills the whole group after a grace.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

STOP_GRACE_SECONDS = 8.0
LINE_BYTES_MAX = 1024 * 1024
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


class StartError(Exception):
    """A process did not come up. Carries the end of what it said."""


def _die_with_parent() -> None:
    with suppress(AttributeError):
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One process and the file that keeps what it says on standard error."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log
        self._draining: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, name: str, argv: Sequence[str], *, env: Mapping[str, str], directory: Path) -> Child:
        """Start a process of its own session. Its standard output is for `line`, its standard error goes to a log."""
        log = directory / f"{name}.log"
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **env},
                limit=LINE_BYTES_MAX,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # no thread of ours holds a lock at that moment
            )
        return cls(name, process, log)

    async def line(self, *, timeout_seconds: float) -> str:
        """The next line of standard output. Raises `StartError` when the process ends or says nothing."""
        stdout = self.process.stdout
        assert stdout is not None
        try:
            async with asyncio.timeout(timeout_seconds):
                line = await stdout.readline()
        except TimeoutError:
            raise StartError(f"{self.name} said nothing for {timeout_seconds:g} s: {self.tail()}") from None
        if not line:
            raise StartError(f"{self.name} ended with {await self.process.wait()}: {self.tail()}")
        return line.decode().rstrip("\n")

    async def ports(self, *, timeout_seconds: float) -> dict[str, int]:
        """The ports a process of `demo.serving` prints when it is ready."""
        ports = msgspec.json.decode(await self.line(timeout_seconds=timeout_seconds), type=dict[str, int])
        self.drain()
        return ports

    def drain(self) -> None:
        """Read and forget standard output from here on, so that the process never waits for us."""
        self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        assert self.process.stdout is not None
        while await self.process.stdout.read(64 * 1024):
            pass

    def tail(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    async def stop(self) -> None:
        """End the process: its input closes and it is asked; what is left of its group after a grace is killed."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_GRACE_SECONDS):
                await self.process.wait()
        except TimeoutError:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            if self._draining is not None:
                self._draining.cancel()


class Children:
    """Everything the demo has started; leaving the block stops it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._children: list[Child] = []
        self._last: list[Child] = []

    async def __aenter__(self) -> Children:
        return self

    async def __aexit__(self, *_: object) -> None:
        others = [child for child in self._children if child not in self._last]
        for group in (others, self._last):
            await asyncio.gather(*(child.stop() for child in group), return_exceptions=True)

    async def start(self, name: str, argv: Sequence[str], env: Mapping[str, str], *, stop_last: bool = False) -> Child:
        """Start one more. What is stopped last is there until the others have said goodbye to it."""
        child = await Child.start(name, argv, env=env, directory=self.directory)
        self._children.append(child)
        if stop_last:
            self._last.append(child)
        return child

    def dead(self) -> list[str]:
        """Names of those that have ended with an error although nobody asked them to."""
        return [child.name for child in self._children if child.process.returncode]
