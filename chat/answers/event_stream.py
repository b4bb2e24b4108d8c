"""Splits a body into server-sent events, by the standard's rules.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream

No library, because each lacks something: httpx2's refuses a body without the Content-Type, keeps
the byte order mark, and waits for the byte after a CR; OpenAI's has no bound, keeps the mark, and
fails at bytes that are not UTF-8.
"""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventStreamParser:
    """Gives the data of each event, once the empty line after it has come.

    Names, ids and retry times of events are not used. An event that does not end is discarded.
    """

    def __init__(self, *, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._event_bytes = 0
        self._line: list[bytes] = []  # parts of the line that has not ended
        self._data: list[bytes] = []  # lines of the event that has not ended
        self._is_first_line = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[str]:
        """The data of the events that end in this chunk. Raises ValueError for an endless event."""
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")  # of a CRLF that was cut in two
        self._after_cr = chunk.endswith(b"\r")
        self._event_bytes += len(chunk)
        events = []
        # Of bytes, splitlines splits at CR, LF and CRLF only.
        for line in chunk.splitlines(keepends=True):
            self._line.append(line)
            if line.endswith((b"\n", b"\r")):
                event = self._end_line()
                if event is not None:
                    events.append(event)
        if self._event_bytes > self._max_event_bytes:
            raise ValueError("the event does not end")
        return events

    def _end_line(self) -> str | None:
        """The event that this line ends, if it is an empty one."""
        line = (self._line[0] if len(self._line) == 1 else b"".join(self._line)).rstrip(b"\r\n")
        self._line = []
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(BYTE_ORDER_MARK)
        if line:
            self._add_field(line)
            return None
        data, self._data, self._event_bytes = self._data, [], 0
        return b"\n".join(data).decode(errors="replace") if data else None

    def _add_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
