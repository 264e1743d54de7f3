"""Server-sent events: the framing in which a server streams an answer.

Written out here because the line iterators of HTTP clients split text where Python's ``str.splitlines``
does, also at U+2028 or U+0085 in the middle of a JSON string. The format ends lines with CR, LF or CRLF
only (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
"""

from __future__ import annotations


class EventDecoder:
    """Collects the bytes of one stream and gives the data of each event as soon as it is whole."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, received: bytes) -> list[str]:
        """Take bytes as they arrive and return the data of the events that they complete."""
        text = self._rest + received
        # A CR at the end may be the first half of a CRLF.
        held = b"\r" if text.endswith(b"\r") else b""
        lines = text.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + held
        return [event for line in lines if (event := self._line(line)) is not None]

    def finish(self) -> list[str]:
        """Return the event that the end of the stream completes, if there is one.

        The format drops an event without an empty line behind it; servers forget that line before they
        close, and the data is whole nevertheless.
        """
        rest, self._rest = self._rest, b""
        events = [self._line(line) for line in (rest.rstrip(b"\r"), b"")]
        return [event for event in events if event is not None]

    def _line(self, line: bytes) -> str | None:
        if not line:
            data, self._data = self._data, []
            return "\n".join(data) if data else None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" ").decode("utf-8", errors="replace"))
        return None  # comments (keep-alives), "event:", "id:" and "retry:" say nothing to us
