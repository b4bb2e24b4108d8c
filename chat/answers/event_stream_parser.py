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
        if self._is_whole_event(chunk):
            return [chunk[6:-2].decode(errors="replace")]
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")  # of a CRLF that was cut in two
        self._after_cr = chunk.endswith(b"\r")
        self._event_bytes += len(chunk)
        events = []
        for part in chunk.splitlines(keepends=True):  # of bytes: at CR, LF and CRLF only
            if not part.endswith((b"\n", b"\r")):
                self._line.append(part)
            elif line := self._line_of(part).rstrip(b"\r\n"):
                name, _, value = line.partition(b":")
                if name == b"data":
                    self._data.append(value.removeprefix(b" "))
            else:
                if self._data:
                    events.append(b"\n".join(self._data).decode(errors="replace"))
                self._data, self._event_bytes = [], 0
        if self._event_bytes > self._max_event_bytes:
            raise ValueError("the event does not end")
        return events

    def _is_whole_event(self, chunk: bytes) -> bool:
        """Whether the chunk is one event of one line, as many servers send: half the work."""
        return (
            chunk.endswith(b"\n\n")
            and chunk.startswith(b"data: ")
            and not (self._line or self._data or self._after_cr or self._is_first_line)
            and chunk.find(b"\n") == len(chunk) - 2
            and b"\r" not in chunk
        )

    def _line_of(self, end: bytes) -> bytes:
        """The line that ends with this part."""
        if self._line:
            end, self._line = b"".join([*self._line, end]), []
        if self._is_first_line:
            self._is_first_line = False
            return end.removeprefix(BYTE_ORDER_MARK)
        return end
