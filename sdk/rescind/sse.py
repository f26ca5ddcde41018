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
        content = b"".join(self._parts)
        held = content.endswith(b"\r")  # perhaps half of an end of line
        lines = (content[:-1] if held else content).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._parts = [lines.pop() + (b"\r" if held else b"")]
        for line in lines:
            if event := self._line(line.decode("utf-8", "replace")):
                yield event

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
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
