"""Servers with OpenAI's protocol that have ways of their own: what they refuse, what they send."""

import math
from dataclasses import dataclass, field
from typing import Any

from fake_openai.behaviours import Behaviour, Refuse
from fake_openai.chat import Echo
from fake_openai.completions import rough_tokens
from fake_openai.embeddings import EmbeddingsJson, Vectors
from fake_openai.exchange import Exchange, as_json
from fake_openai.shapes import EVENTS, JSON, Shape

UNSUPPORTED = "Unsupported parameter: '{}' is not supported with this model."


@dataclass(frozen=True)
class StrictRoles:
    """400 unless the roles after ``system`` alternate, ``user`` first: Mistral's chat template."""

    answer: Behaviour = field(default_factory=Echo)

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        roles = [part.get("role") for part in exchange.request.messages]
        roles = roles[1:] if roles[0] == "system" else roles
        alternates = all(
            role == ("assistant" if at % 2 else "user") for at, role in enumerate(roles)
        )
        refusal = Refuse(400, message="Conversation roles must alternate user/assistant/…")
        await (self.answer if alternates and len(roles) % 2 else refusal).play(exchange, shape)


@dataclass(frozen=True)
class NoSystem:
    """400 for the role ``system``: Gemma's chat template."""

    answer: Behaviour = field(default_factory=Echo)

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        has_system = any(part.get("role") == "system" for part in exchange.request.messages)
        refusal = Refuse(400, message="System role not supported")
        await (refusal if has_system else self.answer).play(exchange, shape)


@dataclass(frozen=True)
class Unsupported:
    """400 for a request that has one of these parameters: newer models of OpenAI, vLLM."""

    parameters: tuple[str, ...]
    answer: Behaviour = field(default_factory=Echo)
    status: int = 400

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        given = [name for name in self.parameters if name in exchange.request.fields]
        if given:
            message = UNSUPPORTED.format(given[0])
            await Refuse(self.status, "unsupported_parameter", message).play(exchange, shape)
        else:
            await self.answer.play(exchange, shape)


@dataclass(frozen=True)
class Window:
    """400 for a prompt and answer of more than ``tokens`` in all, by its own rough count."""

    tokens: int
    answer: Behaviour = field(default_factory=Echo)
    code: str | None = "context_length_exceeded"
    message: str = "This model's maximum context length is {tokens} tokens."
    factor: float = 1.0  # of its count to the usual one

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        request = exchange.request
        length = request.fields.get("max_tokens", 0)
        size = self.factor * rough_tokens(request.prompt_text) + length
        message = self.message.format(tokens=self.tokens)
        refusal = Refuse(400, self.code, message)
        await (refusal if size > self.tokens else self.answer).play(exchange, shape)


@dataclass(frozen=True)
class Raw:
    """These bytes as the body. ``keep_open``: then nothing more, and the connection stays open."""

    body: bytes
    content_type: str = EVENTS
    keep_open: bool = False
    chunk_bytes: int | None = None
    status: int = 200

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        exchange.start(status=self.status, content_type=self.content_type)
        size = self.chunk_bytes or max(len(self.body), 1)
        for at in range(0, len(self.body), size):
            await exchange.send(self.body[at : at + size])
        if self.keep_open:
            await exchange.hang()
        await exchange.send_last()


@dataclass(frozen=True)
class Deltas:
    """A stream of these deltas, such as ``{"tool_calls": [...]}`` or ``{"reasoning_content": ""}``.

    With ``usage``, if there is one, before ``[DONE]``.
    """

    deltas: tuple[dict[str, Any], ...]
    finish_reason: str = "stop"
    usage: dict[str, Any] | None = None

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        choices: list[dict[str, Any]]
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in self.deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": self.finish_reason})
        events: list[dict[str, Any]] = [{"choices": [choice]} for choice in choices]
        if self.usage:
            events.append({"choices": [], "usage": self.usage})
        texts = [*(as_json(event) for event in events), b"[DONE]"]
        body = b"".join(b"data: " + text + b"\n\n" for text in texts)
        await Raw(body).play(exchange, shape)


@dataclass(frozen=True)
class Redirect:
    """307 to this address."""

    location: str
    status: int = 307

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        headers = {"location": self.location}
        await exchange.send_whole(b"", status=self.status, content_type=JSON, headers=headers)


@dataclass(frozen=True)
class WithoutIndex:
    """Vectors without ``index``: Gemini's endpoint. The last ``missing`` are left out."""

    missing: int = 0

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        if not isinstance(shape, EmbeddingsJson):
            raise TypeError("WithoutIndex is for embeddings only")
        items: list[dict[str, Any]] = [
            {"embedding": item["embedding"], "object": "embedding"} for item in shape.items()
        ]
        body = shape.body(items[: len(items) - self.missing])
        await exchange.send_whole(body, content_type=JSON)


@dataclass(frozen=True)
class NanFor:
    """NaN in the vector of each text with this substring; the others are correct."""

    substring: str

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        if not isinstance(shape, EmbeddingsJson):
            raise TypeError("NanFor is for embeddings only")
        items = shape.items()
        for index, text in enumerate(exchange.request.texts):
            if self.substring in text:
                items[index] = shape.item(index, [math.nan] * 1536)
        await exchange.send_whole(shape.body(items), content_type=JSON)


def NoDimensions() -> Unsupported:  # noqa: N802 # like a class
    """400 for ``dimensions``: text-embedding-ada-002, vLLM."""
    return Unsupported(("dimensions",), Vectors())
