"""One embedded server process: started once per folder, watched, stopped in bounded time, and never left behind.

Two mechanisms carry the promise. The folder's lock is an open file that the *server* holds: as long as any process of it
lives, nobody else starts on the folder, and once the lock is free, whatever pid file is found there is stale. And the server
is forked by a thread of its own that lives as long as the server does, because the kernel's parent-death signal follows the
forking thread: starting from `asyncio.to_thread` is therefore safe.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

LAUNCHER = Path(__file__).with_name("launch.py")
START_SECONDS = 60.0
LOCK_SECONDS = 15.0
POLL_SECONDS = 0.005
LOG_TAIL_BYTES = 3000
LOG_BYTES_MAX = 20 * 1024 * 1024


class ServerError(Exception):
    """An embedded server did not start. The text ends with the tail of its log."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def tail(path: Path) -> str:
    """Return the end of a log, or what keeps us from it."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").strip()
    except OSError as error:
        return f"(no log: {error})"


@contextlib.contextmanager
def folder_lock(folder: Path, patience_seconds: float = LOCK_SECONDS) -> Iterator[int]:
    """Yield a file descriptor that holds the folder's lock, to be inherited by the server. Raises `ServerError`.

    A predecessor that was told to stop is waited for.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience_seconds
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ServerError(f"another server is running on {folder}; stop it, or choose another folder") from None
                time.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)


class ServerProcess:
    """A running server. `death_signal` is what the kernel sends it when this process ends, however it ends."""

    def __init__(
        self, command: Sequence[str], *, log: Path, lock: int, death_signal: signal.Signals, data: Path | None = None
    ) -> None:
        self.name = Path(command[0]).name
        self.log = log
        self._command = [
            sys.executable, "-I", "-S", str(LAUNCHER),
            str(os.getpid()), str(int(death_signal)), str(data or "-"), *command,
        ]  # fmt: skip
        self._lock = lock
        self._forked = threading.Event()
        self._failure: OSError | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper = threading.Thread(target=self._keep, name=f"embedded {self.name}", daemon=True)
        self._keeper.start()
        self._forked.wait()
        if self._failure is not None:
            raise ServerError(f"{self.name} could not be started: {self._failure}")

    def _keep(self) -> None:
        try:
            if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
                self.log.replace(self.log.with_suffix(".log.1"))
            with self.log.open("ab") as output:
                self._process = self._fork(output)
        except OSError as error:
            self._failure = error
        self._forked.set()
        if self._process is not None:
            self._process.wait()

    def _fork(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            pass_fds=(self._lock,),
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C", "PGOPTIONS": ""},
        )

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server's process exists."""
        return self._keeper.is_alive()

    def wait_ready(self, ready: Callable[[], bool]) -> None:
        """Return once `ready()` is true. Raises `ServerError` if it ends before or takes too long; it is stopped then."""
        deadline = time.monotonic() + START_SECONDS
        try:
            while not ready():
                if not self.running:
                    raise ServerError(f"{self.name} ended while it started; its log ends:\n{tail(self.log)}")
                if time.monotonic() > deadline:
                    raise ServerError(f"{self.name} was not ready in {START_SECONDS:.0f} s; its log ends:\n{tail(self.log)}")
                time.sleep(POLL_SECONDS)
        except BaseException:
            self.stop()
            raise

    def stop(self, *signals: signal.Signals, patience_seconds: float = 10.0) -> None:
        """End the server: each signal in turn, `patience_seconds` apart, then SIGKILL."""
        assert self._process is not None
        for number in (*signals, signal.SIGKILL):
            self._process.send_signal(number)
            self._keeper.join(patience_seconds)
            if not self.running:
                return
