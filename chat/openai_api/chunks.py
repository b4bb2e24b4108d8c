"""OpenAI's JSON of an answer: whole, or in the chunks of a stream."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from chat.answers.answer_tokens import answer_tokens
from chat.answers.completion_parser import storable
from chat.answers.live_answer import LiveAnswer
from chat.api.event_json import encode_compact
from chat.models import Message

FINISH_REASONS = {"stop", "length", "tool_calls", "content_filter", "function_call"}
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
DONE = b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    """One event of a stream."""
    return f"data: {encode_compact(value)}\n\n".encode()


@dataclass(frozen=True)
class Head:
    """The fields that every chunk of an answer begins with."""

    answer: Message
    model: str

    @property
    def fields(self) -> dict[str, Any]:
        known = self.answer.pk
        created = self.answer.created_at.timestamp() if known else time.time()
        return {
            "id": f"chatcmpl-{known or uuid4().hex}",
            "created": int(created),
            "model": self.model,
        }


class Chunks:
    """The chunks of one answer."""

    def __init__(self, head: Head, *, include_usage: bool) -> None:
        self._fields = {"object": "chat.completion.chunk"} | head.fields
        self._more: dict[str, Any] = {"usage": None} if include_usage else {}
        # The bytes around each text are the same.
        self._around = {name: self._parts_around(name) for name in ("content", "reasoning_content")}

    def text(self, name: str, text: str) -> bytes:
        """A piece of ``content`` or ``reasoning_content``."""
        before, after = self._around[name]
        return f"{before}{encode_compact(text)}{after}".encode()

    def delta(self, delta: dict[str, Any], *, finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event(self._fields | {"choices": [choice]} | self._more)

    def usage(self, usage: dict[str, Any]) -> bytes:
        """The last chunk of a stream with ``stream_options.include_usage``."""
        return event(self._fields | {"choices": [], "usage": usage})

    def _parts_around(self, name: str) -> tuple[str, str]:
        before, after = self.delta({name: "\0"}).decode().split(encode_compact("\0"))
        return before, after


def whole(
    head: Head,
    message: dict[str, Any],
    *,
    finish_reason: str,
    usage: dict[str, Any],
) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    return head.fields | {"object": "chat.completion", "choices": [choice], "usage": usage}


def finish_reason_of(answer: Message, live: LiveAnswer | None) -> str:
    """The server's own reason; else what the answer says."""
    reason = live.completion.finish_reason if live else answer.finish_reason
    if reason in FINISH_REASONS:
        return str(reason)
    return "tool_calls" if live and live.tool_calls else "stop"


def usage_of(live: LiveAnswer | None) -> dict[str, Any]:
    """The server's count of tokens, else ours. A replay has asked no model: zeros."""
    if live is None:
        return dict.fromkeys(COUNTS, 0)
    usage = live.completion.usage
    if usage and all(isinstance(usage.get(name), int) for name in COUNTS):
        return usage
    tokens = answer_tokens(live)
    counts = (tokens.prompt_tokens, tokens.completion_tokens, tokens.total)
    return dict(zip(COUNTS, counts, strict=True))


def merged_calls(deltas: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls of tools from their deltas, as an answer that is not streamed holds them."""
    calls: dict[Any, dict[str, Any]] = {}
    for delta in deltas:
        call = calls.setdefault(delta.get("index"), {"function": {}})
        function = delta.get("function")
        _add(call, {name: delta[name] for name in delta if name not in ("index", "function")})
        _add(call["function"], function if isinstance(function, dict) else {})
    for call in calls.values():
        call["function"] = {
            name: storable(value) if isinstance(value, str) else value
            for name, value in call["function"].items()
        }
    return [{"type": "function"} | call for call in calls.values()]


def _add(known: dict[str, Any], more: dict[str, Any]) -> None:
    """Arguments grow; of each other field the first value that is neither null nor empty stays.

    Servers repeat ``id`` and ``name`` as null (SGLang) or as "" (DashScope) in later deltas.
    """
    for name, value in more.items():
        if name == "arguments" and isinstance(value, str):
            text = known.get(name, "")
            known[name] = text + value if isinstance(text, str) else value
        elif value not in (None, ""):
            known.setdefault(name, value)
