"""A standby of an embedded PostgreSQL that follows it by streaming, for tests of what a failover loses and who comes back.

`pg_basebackup` copies the primary, which must be running when the standby starts for the first time. It is promoted with
`SELECT pg_promote()`. The primary waits for it once it is named there: `ALTER SYSTEM SET synchronous_standby_names`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from runtime.embedded.postgres import EmbeddedPostgres, binary
from runtime.embedded.process import LAUNCHER, ServerError


class EmbeddedStandby(EmbeddedPostgres):
    """A streaming standby of `primary` on `data_dir`, known to it as `name`. The password is the primary's."""

    def __init__(self, data_dir: Path, primary: EmbeddedPostgres, *, name: str = "standby") -> None:
        super().__init__(data_dir, fsync=primary.fsync)
        self.name = name
        self._primary = primary

    def _initialise(self) -> None:
        """Copy the primary beside its final place and rename it."""
        unfinished = self.data_dir / "cluster.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        done = subprocess.run(
            self._base_backup(unfinished), cwd="/", env=self._environment(), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise ServerError(f"pg_basebackup failed on {self.data_dir}:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
        shutil.copy(self._primary.data_dir / "password", self.data_dir / "password")
        unfinished.rename(self.cluster)

    def _base_backup(self, folder: Path) -> list[str]:
        parts = urlsplit(self._primary.url)
        source = f"postgresql://{parts.username}@{parts.hostname}:{parts.port}/?{urlencode({'application_name': self.name})}"
        return [
            sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(int(signal.SIGKILL)), str(folder),
            str(binary("pg_basebackup")), "--pgdata", str(folder), "--dbname", source, "--write-recovery-conf",
            "--checkpoint=fast", "--wal-method=stream", "--no-sync",
        ]  # fmt: skip

    def _environment(self) -> dict[str, str]:
        """The password goes by the environment: a command line is for everyone to read."""
        return {**os.environ, "PGPASSWORD": urlsplit(self._primary.url).password or ""}
