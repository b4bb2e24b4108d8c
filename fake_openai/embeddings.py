"""``POST /v1/embeddings``: meaningful vectors, and wrong answers."""

import base64
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from fake_openai import limits
from fake_openai.behaviours import Behaviour, Refuse
from fake_openai.completions import rough_tokens
from fake_openai.endpoint import Endpoint
from fake_openai.exchange import Exchange, as_json, wait
from fake_openai.record import RecordedRequest
from fake_openai.shapes import JSON, JsonShape, Shape, Style
from fake_openai.vectors import vector_of

DIMENSIONS = 1_536  # text-embedding-3-small

LieKind = Literal[
    "too_few",
    "too_many",
    "reordered",
    "duplicate_index",
    "wrong_size",
    "nan",
    "infinite",
    "zero",
    "not_numbers",
]
Item = dict[str, Any]  # {"object": "embedding", "index": 0, "embedding": [...] or base64}


class EmbeddingsJson(JsonShape):
    """The vectors of a request as OpenAI's JSON list."""

    def __init__(self, request: RecordedRequest, count_tokens: Callable[[str], int]) -> None:
        self.request = request
        self._count_tokens = count_tokens
        self._size = request.fields.get("dimensions", DIMENSIONS)
        self._as_base64 = request.fields.get("encoding_format") == "base64"

    def complete(self, text: str, style: Style) -> bytes:
        """The vectors of the inputs. The text of a behaviour is not used."""
        return self.body(self.items())

    def empty(self) -> list[bytes]:
        return [self.body([])]

    def items(self) -> list[Item]:
        """One item for each input, in order."""
        vectors = (vector_of(text, self._size) for text in self.request.texts)
        return [self.item(index, vector) for index, vector in enumerate(vectors)]

    def item(self, index: int, vector: list[float]) -> Item:
        """A vector in the requested encoding. Both encodings have the same float32 numbers."""
        packed = struct.pack(f"<{len(vector)}f", *vector)
        floats = struct.unpack(f"<{len(vector)}f", packed)
        encoded = base64.b64encode(packed).decode() if self._as_base64 else floats
        return {"object": "embedding", "index": index, "embedding": encoded}

    def vector_of_last(self) -> list[float]:
        """The correct vector of the last input."""
        return vector_of(self.request.texts[-1], self._size)

    def body(self, items: list[Item]) -> bytes:
        """The list as JSON, with the token usage."""
        tokens = sum(map(self._count_tokens, self.request.texts))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        self.request.usage = usage
        model = self.request.fields["model"]
        return as_json({"object": "list", "data": items, "model": model, "usage": usage})


@dataclass(frozen=True)
class Vectors:
    """The correct answer, after ``delay_s``."""

    delay_s: float = 0.0

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        await wait(self.delay_s)
        await exchange.send_whole(b"".join(shape.whole("")), content_type=JSON)


@dataclass(frozen=True)
class Lie:
    """Status 200 with a wrong list. At most the last vector is wrong, so the others look good.

    "reordered" is allowed by OpenAI: the list is reversed, and each ``index`` is right.
    """

    kind: LieKind

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        if not isinstance(shape, EmbeddingsJson):
            raise TypeError("Lie is for embeddings only")
        items = self._wrong_items(shape.items(), shape)
        await exchange.send_whole(shape.body(items), content_type=JSON)

    def _wrong_items(self, items: list[Item], shape: EmbeddingsJson) -> list[Item]:
        last = items[-1]
        match self.kind:
            case "too_few":
                return items[:-1]
            case "too_many":
                return [*items, last | {"index": len(items)}]
            case "reordered":
                return items[::-1]
            case "duplicate_index" if len(items) == 1:
                return items * 2
            case "duplicate_index":
                return [*items[:-1], last | {"index": 0}]
            case "not_numbers":
                return [*items[:-1], last | {"embedding": ["not", "a", "number"]}]
        return [*items[:-1], shape.item(last["index"], self._wrong_vector(shape.vector_of_last()))]

    def _wrong_vector(self, vector: list[float]) -> list[float]:
        match self.kind:
            case "nan":
                return [math.nan, *vector[1:]]
            case "infinite":
                return [math.inf, *vector[1:]]
            case "zero":
                return [0.0] * len(vector)
        return [*vector, 0.5]  # wrong_size


class Embeddings(Endpoint):
    """``when`` looks in every input of a batch. The usual answer is the correct vectors.

    ``count_tokens`` is used for the limits and the usage; approximate unless a test sets it.
    """

    path = "/v1/embeddings"

    def reset(self) -> None:
        """Clear ``script``, ``when``, ``default`` and ``count_tokens``."""
        super().reset()
        self.count_tokens: Callable[[str], int] = rough_tokens

    def refuse_text(self, substring: str) -> None:
        """Answer 400 to every batch that has an input with this substring."""
        self.when(substring, Refuse(400, "content_filter", "One of the inputs was refused."))

    def problem_of(self, request: RecordedRequest) -> Refuse | None:
        return limits.problem_of(request, self.count_tokens)

    def shape_of(self, exchange: Exchange) -> Shape:
        return EmbeddingsJson(exchange.request, self.count_tokens)

    def texts_of(self, request: RecordedRequest) -> list[str]:
        return request.texts

    def usual(self, request: RecordedRequest) -> Behaviour:
        return Vectors()
