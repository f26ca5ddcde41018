"""Outcomes that could not be delivered, on disk until they are: late news is not lost (P11).

An append-only file per instance, one line per outcome (`<checksum> <json>`), synced before the caller goes on, locked by
the process that owns it. A living sibling adopts the journals of instances that are gone. A line that was torn by a
crash is dropped: its effect is in doubt, which is the truth. Delivering a line twice does no harm: the server knows the
outcome by its token. What the server refuses for good is kept, for people, in a file beside the journal.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from pathlib import Path
from typing import IO

import msgspec

from rescind.wire import EffectReport

JOURNAL_BYTES_MAX = 64 * 1024 * 1024
SUFFIX = ".journal"
REFUSED_SUFFIX = ".refused"


class JournalFull(OSError):  # noqa: N818
    """The journal holds 64 MiB: outcomes stay in memory until the server is back."""


class Journal:
    """One instance's journal. Opened at the first line; every method may raise `OSError`. Not for two threads at once."""

    def __init__(self, folder: Path, instance: str) -> None:
        self._folder = folder
        name = instance.replace("/", "_")
        self._path = folder / (name + SUFFIX)
        self.refused_path = folder / (name + REFUSED_SUFFIX)
        self._file: IO[bytes] | None = None
        self._closed = False

    def append(self, reports: list[EffectReport]) -> None:
        """Add `reports` and sync. They are durable when this returns."""
        file = self._open()
        assert file is not None
        lines = b"".join(line_of(report) for report in reports)
        if file.tell() + len(lines) > JOURNAL_BYTES_MAX:
            raise JournalFull(f"{self._path} is full")
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
        if self._closed:
            self._let_go()

    def set_aside(self, report: EffectReport) -> None:
        """Keep what the server refused. Nobody adopts or deletes it."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self.refused_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "ab") as file:
            if file.tell() > JOURNAL_BYTES_MAX:
                raise JournalFull(f"{self.refused_path} is full")
            file.write(line_of(report))
            file.flush()
            os.fsync(file.fileno())

    def clear(self) -> None:
        """Everything was delivered."""
        if self._file is not None:
            self._file.truncate(0)

    def close(self, *, delivered: bool) -> None:
        """Let go of the file; a sibling adopts it unless everything was delivered. A later line opens it for itself alone."""
        self._closed = True
        if self._file is not None and delivered:
            self._path.unlink(missing_ok=True)
        self._let_go()

    def files(self) -> list[tuple[int, int]]:
        """Descriptor and inode of the open file, for a child that must not hold its lock."""
        if self._file is None or self._file.closed:
            return []
        descriptor = self._file.fileno()
        return [(descriptor, os.fstat(descriptor).st_ino)]

    def adopt(self) -> list[EffectReport]:
        """Take over the journals that no living process holds, this instance's own from before included."""
        found: list[EffectReport] = []
        if self._file is None and not self._closed and self._path.exists() and self._open(block=False) is not None:
            found += read_lines(self._path.read_bytes())
        for path in sorted(self._folder.glob("*" + SUFFIX)) if self._folder.is_dir() else []:
            if path != self._path:
                found += self._adopt(path)
        return found

    def _adopt(self, path: Path) -> list[EffectReport]:
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if reports := read_lines(file.read()):
                    self.append(reports)
                path.unlink(missing_ok=True)
                return reports
        except (BlockingIOError, FileNotFoundError):  # its process lives, or another sibling was here first
            return []

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, *, block: bool = True) -> IO[bytes] | None:
        """The file, locked; null where another holds it and we do not wait."""
        while self._file is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX if block else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return None
            if self._path.exists() and os.path.samestat(os.fstat(file.fileno()), self._path.stat()):
                self._file = file
            else:  # a sibling took it for an orphan's, and removed it, before it was locked
                file.close()
        return self._file


def line_of(report: EffectReport) -> bytes:
    """One line, with the checksum that tells a torn one."""
    body = msgspec.json.encode(report)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def read_lines(content: bytes) -> list[EffectReport]:
    """The reports of every whole line, in order."""
    reports = []
    for line in content.split(b"\n"):
        mark, _, body = line.partition(b" ")
        if body and mark == b"%08x" % zlib.crc32(body):
            try:
                reports.append(msgspec.json.decode(body, type=EffectReport))
            except msgspec.MsgspecError:
                continue
    return reports
