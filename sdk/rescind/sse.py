"""Server-sent events, read from bytes as they come (WHATWG HTML, section 9.2.6). Pure."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

EVENT_BYTES_MAX = 64 * 1024 * 1024


class Event(Struct, frozen=True, kw_only=True):
    """One event. `id` is the last one seen on the stream, as the standard has it."""

    event: str = "message"
    id: str = ""
    data: str = ""


class EventParser:
    """Bytes in, events out. A stream cut in the middle of an event yields nothing for it.

    >>> list(EventParser().feed(b"event: change\\nid: 1.2\\ndata: {}\\n\\n"))
    [Event(event='change', id='1.2', data='{}')]
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        """What came since the last end of a line."""
        self._event = ""
        self._id = ""
        self._data: list[str] = []
        self._size = 0
        self.retry_seconds: float | None = None

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield every event that `chunk` completes. Raises `ValueError` for one larger than 64 MiB."""
        self._size += len(chunk)
        if self._size > EVENT_BYTES_MAX:
            raise ValueError("an event larger than 64 MiB")
        self._parts.append(chunk)
        if b"\n" not in chunk and b"\r" not in chunk and not self._parts[0].endswith(b"\r"):
            return
        for line in self._lines():
            if event := self._line(line):
                yield event

    def _lines(self) -> list[bytes]:
        """The lines that are complete; what follows them is kept. Megabytes in one line are joined once and not searched."""
        *before, chunk = self._parts
        if b"\r" in chunk or (before and before[-1].endswith(b"\r")):
            before, chunk = [], b"".join(self._parts)
        held = chunk.endswith(b"\r")  # perhaps half of an end of line
        if b"\r" in chunk:
            chunk = (chunk[:-1] if held else chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *others = chunk.split(b"\n")
        lines = [b"".join([*before, first]), *others]
        self._parts = [lines.pop() + (b"\r" if held else b"")]
        return lines

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        end = line.find(b":")
        begin = len(line) if end < 0 else end + 2 if line.startswith(b" ", end + 1) else end + 1
        value = str(memoryview(line)[begin:], "utf-8", "replace")
        match (line if end < 0 else line[:end]).decode("utf-8", "replace"):
            case "event":
                self._event = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isdecimal():
                self.retry_seconds = int(value) / 1000
        return None

    def _dispatch(self) -> Event | None:
        event, data = self._event or "message", self._data
        self._event, self._data, self._size = "", [], 0
        return Event(event=event, id=self._id, data="\n".join(data)) if data else None
