"""``POST /v1/chat/completions``: good and unusual answers."""

import sys
from dataclasses import dataclass
from itertools import cycle, islice

from fake_openai.behaviours import Behaviour, Refuse
from fake_openai.completions import CompletionEvents, CompletionJson, deltas_of
from fake_openai.endpoint import Endpoint, invalid
from fake_openai.exchange import Exchange, loop_time, wait, wait_until
from fake_openai.record import RecordedRequest
from fake_openai.shapes import JSON, Shape, Style


@dataclass(frozen=True)
class Answer:
    """A good answer, with one word in each delta.

    The status line is sent at once, the first word after ``first_token_s``, then ``tokens_per_s``
    (None: all at once). Not streamed, the answer takes as long as a stream would. ``split_bytes``
    cuts the stream into chunks of that size, even inside a character. For embeddings the vectors
    come after the same time.
    """

    text: str
    first_token_s: float = 0.0
    tokens_per_s: float | None = None
    finish_reason: str = "stop"
    line_end: str = "\n"
    comments: bool = False
    null_deltas: bool = False
    split_bytes: int | None = None
    words_per_delta: int = 1
    cached_tokens: int = 0

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        pieces = shape.whole(self.text, self._style())
        if shape.content_type == JSON:
            await wait(self._due_at_s(len(deltas_of(self.text, self.words_per_delta))))
            await exchange.send_whole(b"".join(pieces), content_type=JSON)
        else:
            exchange.start(content_type=shape.content_type)
            await self._stream(exchange, pieces)

    async def _stream(self, exchange: Exchange, pieces: list[bytes]) -> None:
        started, sent = loop_time(), 0
        while True:
            await wait_until(started + self._due_at_s(sent))
            due = max(sent + 1, self._count_due(loop_time() - started))
            if due >= len(pieces):
                break
            await exchange.send(*self._split(pieces[sent:due]))
            sent = due
        *chunks, last = self._split(pieces[sent:])
        await exchange.send(*chunks)
        await exchange.send_last(last)

    def _due_at_s(self, piece: int) -> float:
        """Seconds from the start until a piece is due. Piece 0 is the role, 1 the first word."""
        if piece == 0 or self.tokens_per_s is None:
            return self.first_token_s if piece else 0.0
        return self.first_token_s + (piece - 1) / self.tokens_per_s

    def _count_due(self, elapsed_s: float) -> int:
        """How many pieces are due now. A late stream catches up in one write."""
        if elapsed_s < self.first_token_s:
            return 1
        if self.tokens_per_s is None:
            return sys.maxsize
        return 2 + int((elapsed_s - self.first_token_s) * self.tokens_per_s)

    def _split(self, pieces: list[bytes]) -> list[bytes]:
        """The chunks to send, each in its own write."""
        data = b"".join(pieces)
        if self.split_bytes is None:
            return [data]
        return [data[at : at + self.split_bytes] for at in range(0, len(data), self.split_bytes)]

    def _style(self) -> Style:
        return Style(
            finish_reason=self.finish_reason,
            line_end=self.line_end,
            comments=self.comments,
            null_deltas=self.null_deltas,
            words_per_delta=self.words_per_delta,
            cached_tokens=self.cached_tokens,
        )


@dataclass(frozen=True)
class Echo:
    """Repeats the last user message. With ``tokens``: again and again, up to that many words."""

    first_token_s: float = 0.0
    tokens_per_s: float | None = None
    tokens: int | None = None

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        answer = Answer(
            self._text(exchange.request.last_user_text), self.first_token_s, self.tokens_per_s
        )
        await answer.play(exchange, shape)

    def _text(self, content: str) -> str:
        text = f"You said: {content}"
        return text if self.tokens is None else " ".join(islice(cycle(text.split()), self.tokens))


def Big(size_bytes: int = 1_000_000) -> Answer:  # noqa: N802 # like a class
    """An ASCII answer of ``size_bytes``, with 100 words in each delta."""
    sentence = "All work and no play makes a long answer. "
    return Answer((sentence * (size_bytes // len(sentence) + 1))[:size_bytes], words_per_delta=100)


CONTROLS = (
    "Nul \x00, bell \x07, escape \x1b[31m, delete \x7f, override \u202e, "
    "lone \ud800 and \udfff, end."
)


def Controls() -> Answer:  # noqa: N802 # like a class
    """An answer of ``CONTROLS``: NUL, control characters and lone surrogates, as JSON escapes."""
    return Answer(CONTROLS)


class Chat(Endpoint):
    """``when`` looks in the last user message, which is also the usual answer."""

    path = "/v1/chat/completions"

    def problem_of(self, request: RecordedRequest) -> Refuse | None:
        if request.body is None:
            return invalid("We could not parse the JSON body of your request.")
        if not isinstance(request.fields.get("model"), str):
            return invalid("you must provide a model parameter")
        if not request.messages:
            return invalid("Missing required parameter: 'messages'.", "missing_required_parameter")
        return None

    def shape_of(self, exchange: Exchange) -> Shape:
        return CompletionEvents(exchange) if exchange.request.streams else CompletionJson(exchange)

    def texts_of(self, request: RecordedRequest) -> list[str]:
        return [request.last_user_text]

    def usual(self, request: RecordedRequest) -> Behaviour:
        return Echo()
