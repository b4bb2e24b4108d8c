"""What a model's server was found to accept, remembered until the process ends.

Servers with OpenAI's protocol differ: some refuse the role ``system``, some refuse ``max_tokens``
and want ``max_completion_tokens``. A request that is refused for that is asked again in another
way, and the way that works is used from then on.
"""

from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings

from chat.answers.client_messages import Part, with_text_before
from retrieval.service_errors import ServiceError

LENGTHS = {"max_tokens", "max_completion_tokens"}
# Asks for the server's own count of tokens, which ends the stream.
COUNT_TOKENS = {"stream_options": {"include_usage": True}}


@dataclass(frozen=True)
class ServerWays:
    """How one server is asked."""

    has_system_role: bool = True
    length_parameter: str = "max_tokens"
    has_stream_options: bool = True
    sends_usage: bool = True  # until an answer has come without it

    def request_body(self, messages: list[Part], parameters: dict[str, Any]) -> dict[str, Any]:
        """The body of a request, with LLM_EXTRA_BODY and a client's ``parameters``, which win.

        Neither can replace messages and stream.
        """
        extra = COUNT_TOKENS | settings.LLM_EXTRA_BODY | parameters
        if parameters.keys() & LENGTHS:
            for name in LENGTHS - parameters.keys():
                extra.pop(name, None)
        if not self.has_stream_options:
            extra.pop("stream_options", None)
        if not extra.keys() & LENGTHS:
            extra["max_tokens"] = settings.LLM_MAX_TOKENS
        if "max_tokens" in extra:
            extra[self.length_parameter] = extra.pop("max_tokens")
        sent = messages if self.has_system_role else without_system(messages)
        return {"model": settings.LLM_MODEL} | extra | {"messages": sent, "stream": True}

    def after(self, refusal: ServiceError) -> "ServerWays | None":
        """Another way for a server that refuses this one; None if the refusal names none."""
        if self.length_parameter == "max_tokens" and refusal.names("max_tokens"):
            return replace(self, length_parameter="max_completion_tokens")
        if self.has_stream_options and refusal.names("stream_options"):
            return replace(self, has_stream_options=False)
        if self.has_system_role and refusal.names("system"):
            return replace(self, has_system_role=False)
        return None


def without_system(messages: list[Part]) -> list[Part]:
    """The same prompt, the instructions at the head of the first ``user`` message."""
    system, *rest = messages
    for place, message in enumerate(rest):
        if message["role"] == "user":
            return [*rest[:place], with_text_before(message, system["content"]), *rest[place + 1 :]]
    return [{"role": "user", "content": system["content"]}, *rest]


_ways: dict[tuple[str, str], ServerWays] = {}  # (base URL, model) → ways; only on the event loop


def ways_of(base_url: str) -> ServerWays:
    """The ways of the server for the configured model."""
    return _ways.get((base_url, settings.LLM_MODEL), ServerWays())


def remember_ways(base_url: str, ways: ServerWays) -> None:
    _ways[base_url, settings.LLM_MODEL] = ways
