"""Processes of the command `rescind`, as a user starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.children import die_with_parent

READY_SECONDS = 150.0
CLI = [sys.executable, "-m", "rescind.cli"]


def environment(**variables: str) -> dict[str, str]:
    """The process's environment without anything of ours but these, and without the width of whoever runs the tests."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RESCIND_") and name != "COLUMNS"}
    return {**clean, "PYTHONWARNINGS": "default", **variables}


def rescind(
    *arguments: str, cwd: Path | None = None, timeout_seconds: float = 150, stdin: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*CLI, *arguments], env=environment(**variables), cwd=cwd, capture_output=True, text=True, timeout=timeout_seconds,
        check=False, input=stdin,
    )  # fmt: skip


class Process:
    """A command that goes on until it is stopped; `ready` is the URL that it said."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path | None = None,
        variables: Mapping[str, str] | None = None,
        cli: Sequence[str] = CLI,
    ) -> None:
        self._process = subprocess.Popen(
            [*cli, *arguments], env=environment(**(variables or {})), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, preexec_fn=die_with_parent,
        )  # fmt: skip
        self.lines: list[str] = []
        self._ready = threading.Event()
        self.ready = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code, once it has ended."""
        return self._process.poll()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def wait_ready(self) -> str:
        """The URL, once it is ready."""
        assert self._ready.wait(READY_SECONDS), self.output
        assert self.ready, self.output
        return self.ready

    def end(self, number: int = signal.SIGTERM, timeout_seconds: float = 60) -> int:
        """Send a signal, wait for the end, return the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        code = self._process.wait(timeout_seconds)
        self._reader.join(timeout_seconds)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            if " is ready: " in line:
                self.ready = line.split(" is ready: ")[1].strip()
                self._ready.set()
        self._ready.set()
