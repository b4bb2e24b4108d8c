"""A chat completion as server-sent events or as one JSON object."""

import math
import re
import time
from typing import Any

from fake_openai.exchange import Exchange, as_json
from fake_openai.record import RecordedRequest
from fake_openai.shapes import EVENTS, PLAIN, JsonShape, Style

WORD = re.compile(r"\s*\S+|\s+")  # a word with the space before it, like OpenAI's tokens
TOKENS_PER_WORD = 1.3  # approximate; enough for the usage in tests
COMMENT = b": keep-alive"


def deltas_of(text: str, words: int = 1) -> list[str]:
    """The text in pieces of ``words`` words. Joined, they are the text."""
    pieces = WORD.findall(text)
    return ["".join(pieces[at : at + words]) for at in range(0, len(pieces), words)]


def rough_tokens(text: str) -> int:
    """The approximate number of tokens."""
    return math.ceil(len(text.split()) * TOKENS_PER_WORD)


class CompletionEvents:
    """A streamed completion: role, words, finish_reason, usage, ``[DONE]``."""

    content_type = EVENTS

    def __init__(self, exchange: Exchange) -> None:
        request = exchange.request
        self._base = _base(exchange, "chat.completion.chunk")
        self._request = request
        options = request.fields.get("stream_options")
        self._with_usage = isinstance(options, dict) and options.get("include_usage") is True
        self._usage_field: dict[str, Any] = {"usage": None} if self._with_usage else {}

    def whole(self, text: str, style: Style = PLAIN) -> list[bytes]:
        """One piece for the role and each delta; the last one also has the end of the stream."""
        *words, last = self._words(text, style)
        return [*words, last + b"".join(self._closing(text, style))]

    def begun(self, text: str) -> list[bytes]:
        return self._words(text, PLAIN)

    def garbled(self) -> list[bytes]:
        cut = self._delta({"content": "lost"}, PLAIN)[:60] + b"\n\n"
        return [*self.begun("Some words."), cut, b"data: [DONE]\n\n"]

    def failed(self, text: str, error: bytes) -> list[bytes]:
        return [*self.begun(text), _event(error, PLAIN)]

    def empty(self) -> list[bytes]:
        return [b"data: [DONE]\n\n"]

    def _words(self, text: str, style: Style) -> list[bytes]:
        role = self._delta({"role": "assistant", "content": "", "refusal": None}, style)
        null = self._delta({"content": None}, style) if style.null_deltas else b""
        prefix, suffix = self._around_content(style)
        words = deltas_of(text, style.words_per_delta)
        return [role, *(null + prefix + as_json(word) + suffix for word in words)]

    def _around_content(self, style: Style) -> tuple[bytes, bytes]:
        # The bytes around each word are the same, so they are encoded once.
        prefix, _, suffix = self._delta({"content": "\0"}, style).partition(as_json("\0"))
        return prefix, suffix

    def _closing(self, text: str, style: Style) -> list[bytes]:
        end = self._delta({}, style, style.finish_reason)
        usage = _usage(self._request, text, style)
        counts = [_event(as_json(self._base | {"choices": [], "usage": usage}), style)]
        return [end, *(counts if self._with_usage else []), _event(b"[DONE]", style)]

    def _delta(
        self, delta: dict[str, Any], style: Style, finish_reason: str | None = None
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event(as_json(self._base | {"choices": [choice]} | self._usage_field), style)


class CompletionJson(JsonShape):
    """A completion that is not streamed."""

    def __init__(self, exchange: Exchange) -> None:
        self._base = _base(exchange, "chat.completion")
        self._request = exchange.request

    def complete(self, text: str, style: Style) -> bytes:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": style.finish_reason,
        }
        usage = _usage(self._request, text, style)
        return as_json(self._base | {"choices": [choice], "usage": usage})

    def empty(self) -> list[bytes]:
        return [self.complete("", PLAIN)]


def _base(exchange: Exchange, kind: str) -> dict[str, Any]:
    model = exchange.request.fields.get("model")
    return {
        "id": f"chatcmpl-{exchange.number}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def _usage(request: RecordedRequest, text: str, style: Style) -> dict[str, Any]:
    """The tokens of a whole answer, recorded in its request."""
    prompt_tokens, answer_tokens = rough_tokens(request.prompt_text), len(deltas_of(text))
    request.usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": answer_tokens,
        "total_tokens": prompt_tokens + answer_tokens,
    }
    if style.cached_tokens:
        request.usage["prompt_tokens_details"] = {"cached_tokens": style.cached_tokens}
    return request.usage


def _event(data: bytes, style: Style) -> bytes:
    end = style.line_end.encode()
    comment = COMMENT + end + end if style.comments else b""
    return comment + b"data: " + data + end + end
