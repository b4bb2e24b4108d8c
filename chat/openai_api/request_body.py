"""Checks the body of ``POST /v1/chat/completions``. docs/openai-api.md"""

import re
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from chat.answers.client_messages import Part, text_of
from chat.models import MAX_CONTENT_CHARS
from chat.openai_api.errors import InvalidRequest, ModelNotFound

MEMORY, NO_MEMORY = MODELS = ("verse", "verse-nomemory")
SYSTEM_ROLES = {"system", "developer"}
TOOL_ROLES = {"tool", "function"}
ROLES = SYSTEM_ROLES | TOOL_ROLES | {"user", "assistant"}
# What Verse uses itself, or keeps from the model's server. All other fields are passed on.
OWN_FIELDS = {
    *("model", "messages", "stream", "stream_options", "n", "metadata", "store", "user"),
    *("max_tokens", "max_completion_tokens", "modalities", "audio"),
}
NOT_SENT_BACK = {"reasoning", "reasoning_content", "audio", "annotations"}  # of a client's message
SURROGATES = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class CompletionBody:
    """A checked body. ``messages``: all but the system's, whose texts are ``system``."""

    model: str
    messages: list[Part]
    system: str
    parameters: dict[str, Any]  # passed on to the model's server
    stream: bool
    include_usage: bool
    chat_id: str  # metadata.chat_id, "" if there is none

    @property
    def has_tools(self) -> bool:
        """Whether the answer may be calls of tools alone: then its turn is stored later."""
        return bool(self.parameters.get("tools")) or self.messages[-1]["role"] in TOOL_ROLES


def parse_body(data: Any) -> CompletionBody:
    """Raises InvalidRequest, ModelNotFound."""
    if not isinstance(data, dict):
        raise InvalidRequest("The body must be a JSON object.")
    model = data.get("model")
    if not isinstance(model, str):
        raise InvalidRequest("model: give the name of a model.", param="model")
    if model not in MODELS:
        raise ModelNotFound
    _refuse_what_cannot_be_given(data)
    messages = _messages(data.get("messages"))
    others = [message for message in messages if message["role"] not in SYSTEM_ROLES]
    if not others:
        raise InvalidRequest("messages: there is none but the system's.", param="messages")
    options = _object(data, "stream_options")
    return CompletionBody(
        model=model,
        messages=others,
        system="\n\n".join(text_of(m) for m in messages if m["role"] in SYSTEM_ROLES),
        parameters=_parameters(data),
        stream=_boolean(data, "stream"),
        include_usage=bool(options.get("include_usage")),
        chat_id=_chat_id(data),
    )


def check_question(text: str, param: str) -> None:
    """The rules for a message of our own API. Raises InvalidRequest."""
    if not text.strip():
        raise InvalidRequest("This field may not be blank.", param=param)
    if len(text) > MAX_CONTENT_CHARS:
        detail = f"Ensure this field has no more than {MAX_CONTENT_CHARS} characters."
        raise InvalidRequest(detail, param=param)
    if "\0" in text:
        raise InvalidRequest("Null characters are not allowed.", param=param)


def _refuse_what_cannot_be_given(data: dict[str, Any]) -> None:
    number = data.get("n")
    if number is not None and (isinstance(number, bool) or number != 1):
        raise InvalidRequest("n: a request has one answer.", param="n")
    modalities = data.get("modalities") or []
    if not isinstance(modalities, list):
        raise InvalidRequest("modalities: give a list.", param="modalities")
    if data.get("audio") or "audio" in modalities:
        raise InvalidRequest("Answers are text: audio cannot be given.", param="modalities")


def _messages(value: Any) -> list[Part]:
    if not isinstance(value, list) or not value:
        raise InvalidRequest("messages: give a list of messages.", param="messages")
    return [_message(message, place) for place, message in enumerate(value)]


def _message(value: Any, place: int) -> Part:
    """The message without what must not be sent back. There may be thousands: see benchmarks."""
    if not isinstance(value, dict):
        raise _invalid_message(place, "", "a message is an object")
    role, content = value.get("role"), value.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise _invalid_message(place, ".role", f"one of {', '.join(sorted(ROLES))}")
    if isinstance(content, list):
        for part in content:
            _check_part(part, place)
    elif content is not None or role != "assistant":
        _check_text(content, place)
    calls = value.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise _invalid_message(place, ".tool_calls", "not a list")
    if NOT_SENT_BACK.isdisjoint(value):
        return value
    return {name: field for name, field in value.items() if name not in NOT_SENT_BACK}


def _check_part(part: Any, place: int) -> None:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise _invalid_message(place, ".content", "a part is an object with a type")
    if part["type"] == "input_audio":
        raise _invalid_message(place, ".content", "audio is not supported")
    if part["type"] == "text":
        _check_text(part.get("text"), place)


def _check_text(text: Any, place: int) -> None:
    if not isinstance(text, str):
        raise _invalid_message(place, ".content", "a text or a list of parts")
    if not text.isascii() and SURROGATES.search(text):
        raise _invalid_message(place, ".content", "a character is cut in half")


def _invalid_message(place: int, field: str, problem: str) -> InvalidRequest:
    param = f"messages[{place}]{field}"
    return InvalidRequest(f"{param}: {problem}.", param=param)


def _parameters(data: dict[str, Any]) -> dict[str, Any]:
    parameters = {name: value for name, value in data.items() if name not in OWN_FIELDS}
    for name in ("max_completion_tokens", "max_tokens"):
        limit = data.get(name)
        if limit is None:
            continue
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise InvalidRequest(f"{name}: a whole number from 1.", param=name)
        parameters["max_tokens"] = min(limit, settings.LLM_MAX_TOKENS)
    return parameters


def _object(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidRequest(f"{name}: not an object.", param=name)
    return value or {}


def _boolean(data: dict[str, Any], name: str) -> bool:
    value = data.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"{name}: true or false.", param=name)
    return bool(value)


def _chat_id(data: dict[str, Any]) -> str:
    value = _object(data, "metadata").get("chat_id")
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise InvalidRequest("metadata.chat_id: a text or a number.", param="metadata.chat_id")
    return "" if value is None else str(value)
