"""Parses HTTP/1.1 requests with a Content-Length, as OpenAI's client sends them."""

from fake_openai.record import RecordedRequest

MAX_HEAD_BYTES = 65_536  # much more than our clients send
MAX_BODY_BYTES = 20 * 1024 * 1024  # much more than OpenAI's limit of 300,000 tokens

Head = tuple[str, str, dict[str, str]]


class BadRequestError(Exception):
    """The bytes are not a readable request. ``status`` is the answer's status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class RequestReader:
    """Splits a connection's bytes into requests, pipelined ones too."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._head: Head | None = None

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._bytes += data

    def take(self) -> RecordedRequest | None:
        """The next complete request, or None. Raises BadRequestError."""
        self._head = self._head or self._take_head()
        if self._head is None:
            return None
        method, path, headers = self._head
        length = _body_length(headers)
        if len(self._bytes) < length:
            return None
        self._head = None
        return RecordedRequest(method, path, headers, self._take_bytes(length))

    def _take_head(self) -> Head | None:
        end = self._bytes.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
        if end < 0 and len(self._bytes) > MAX_HEAD_BYTES:
            raise BadRequestError(431, "The head of the request is too large.")
        return _parse_head(self._take_bytes(end + 4)) if end >= 0 else None

    def _take_bytes(self, count: int) -> bytes:
        taken = bytes(self._bytes[:count])
        del self._bytes[:count]
        return taken


def _parse_head(head: bytes) -> Head:
    first, *lines = head.decode("latin-1").strip("\r\n").split("\r\n")
    try:
        method, target, _version = first.split(" ")
    except ValueError:
        raise BadRequestError(400, "The request line is not HTTP.") from None
    pairs = (line.partition(":") for line in lines)
    return (
        method,
        target.partition("?")[0],
        {name.lower(): value.strip() for name, _, value in pairs},
    )


def _body_length(headers: dict[str, str]) -> int:
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers:
        raise BadRequestError(411, "Send a Content-Length.")
    if not (length.isascii() and length.isdecimal()):
        raise BadRequestError(400, "The Content-Length is not a number.")
    if int(length) > MAX_BODY_BYTES:
        raise BadRequestError(413, f"The body is larger than {MAX_BODY_BYTES} bytes.")
    return int(length)
