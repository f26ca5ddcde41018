"""Outcomes that could not be delivered, and effects begun without the server, on disk until they are: late news is not lost
(P10, P11).

An append-only file per instance and kind of line, one line each (`<checksum> <json>`), synced before the caller goes on, locked
by the process that owns it. A living sibling adopts the journals of instances that are gone. A line that was torn by a crash is
dropped: an outcome's effect is in doubt, which is the truth, and an effect whose line was not whole has not begun. To deliver a
line twice does no harm: the server knows it by its token. What it refuses for good is kept, for people, in a file beside it.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from pathlib import Path
from typing import IO, Any

import msgspec

from rescind.wire import EffectReport

JOURNAL_BYTES_MAX = 64 * 1024 * 1024
SUFFIX = ".journal"
REFUSED_SUFFIX = ".refused"


class JournalFull(OSError):  # noqa: N818
    """The journal holds 64 MiB: outcomes stay in memory until the server is back, and nothing is begun without it."""


class Journal:
    """One instance's journal. Opened at the first line; every method may raise `OSError`. Not for two threads at once."""

    def __init__(self, folder: Path, instance: str, kind: Any = EffectReport, suffix: str = SUFFIX) -> None:
        """`kind`: the Struct that a line holds."""
        self._folder = folder
        self._kind = kind
        self._suffix = suffix
        name = instance.replace("/", "_")
        self._path = folder / (name + suffix)
        self.refused_path = folder / (name + (suffix if suffix != SUFFIX else "") + REFUSED_SUFFIX)
        self.adopted: list[str] = []
        """The instances whose journals were taken over."""
        self._file: IO[bytes] | None = None
        self._closed = False

    def append(self, lines: list[Any]) -> None:
        """Add `lines` and sync. They are durable when this returns."""
        file = self._open()
        assert file is not None
        content = b"".join(line_of(line) for line in lines)
        if file.tell() + len(content) > JOURNAL_BYTES_MAX:
            raise JournalFull(f"{self._path} is full")
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if self._closed:
            self._let_go()

    def prepare(self) -> None:
        """Open it, so that a sibling finds it when this process is gone, and can say that it holds nothing."""
        self._open()

    def set_aside(self, line: Any) -> None:
        """Keep what the server refused. Nobody adopts or deletes it."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self.refused_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "ab") as file:
            if file.tell() > JOURNAL_BYTES_MAX:
                raise JournalFull(f"{self.refused_path} is full")
            file.write(line_of(line))
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

    def adopt(self) -> list[Any]:
        """Take over the journals that no living process holds, this instance's own from before included."""
        found: list[Any] = []
        if self._file is None and not self._closed and self._path.exists() and self._open(block=False) is not None:
            found += read_lines(self._path.read_bytes(), self._kind)
        for path in sorted(self._folder.glob("*" + self._suffix)) if self._folder.is_dir() else []:
            if path != self._path:
                found += self._adopt(path)
        return found

    def _adopt(self, path: Path) -> list[Any]:
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if lines := read_lines(file.read(), self._kind):
                    self.append(lines)
                path.unlink(missing_ok=True)
                self.adopted.append(path.name.removesuffix(self._suffix))
                return lines
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
                sync(self._folder)
            else:  # a sibling took it for an orphan's, and removed it, before it was locked
                file.close()
        return self._file


def sync(folder: Path) -> None:
    """A new file's name is durable too, when this returns."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def line_of(line: object) -> bytes:
    """One line, with the checksum that tells a torn one."""
    body = msgspec.json.encode(line)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def read_lines(content: bytes, kind: Any = EffectReport) -> list[Any]:
    """What every whole line says, in order."""
    lines = []
    for line in content.split(b"\n"):
        mark, _, body = line.partition(b" ")
        if body and mark == b"%08x" % zlib.crc32(body):
            try:
                lines.append(msgspec.json.decode(body, type=kind))
            except msgspec.MsgspecError:
                continue
    return lines
