"""The last known snapshot on disk: comes before any default when a service starts and the server is away (P6).

Atomic (a new file, synced, then renamed), checksummed, mode 0600. One file per server, token and environment; several
processes share it, and none replaces a later snapshot by an earlier one (P2). None waits for another: a process that was
stopped, or forked, in the middle of its turn must not hold up its siblings.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from rescind.packed import read_in_stretches
from rescind.wire import Revision, Snapshot

MAGIC = b"rescind-snapshot-1"


class LastKnown:
    """`folder`/snapshot. Every method may raise `OSError`: the caller says so in its status and goes on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "snapshot"

    def load(self) -> Snapshot | None:
        """The snapshot, or None where there is none or its checksum is wrong."""
        try:
            head, _, body = self._file.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        if head.split(b" ")[:2] != [MAGIC, checksum(body)]:
            return None
        try:
            return read_in_stretches(body)
        except msgspec.MsgspecError:
            return None

    def written_at(self) -> float | None:
        """When it was written, in seconds since 1970 by this machine's wall clock; null where there is none."""
        try:
            return self._file.stat().st_mtime
        except OSError:
            return None

    def save(self, snapshot: Snapshot) -> bool:
        """Write it, unless it or a later one is there already, from a sibling perhaps; whether it was written.

        Raises `BlockingIOError` where a sibling is writing now: come again.
        """
        if self._revision() >= snapshot.revision:
            return False
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            if self._revision() >= snapshot.revision:
                return False
            self._write(snapshot)
            return True

    def _write(self, snapshot: Snapshot) -> None:
        body = msgspec.json.encode(snapshot)
        head = b" ".join([MAGIC, checksum(body), str(snapshot.revision).encode()])
        handle, name = tempfile.mkstemp(dir=self._folder, prefix="snapshot.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(head + b"\n" + body)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._file)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise

    def _revision(self) -> Revision:
        try:
            with self._file.open("rb") as file:
                magic, _, revision = file.readline(256).decode("ascii").strip().split(" ")
            return Revision.parse(revision) if magic.encode() == MAGIC else Revision()
        except (FileNotFoundError, ValueError):
            return Revision()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The lock is given back by name: a child that was forked meanwhile has a share of the open file."""
        with (self._folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)


def checksum(body: bytes) -> bytes:
    """SHA-256 of the body, in hex."""
    return hashlib.sha256(body).hexdigest().encode()
