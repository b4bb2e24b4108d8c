"""Reads why a model's server refused a request, without repeating what it must not repeat."""

import json
import re
from dataclasses import dataclass
from typing import Any

# docs/promises.md, "REST API": only such a code is shown and logged. A message can quote the key
# or a user's text.
CODE = re.compile(r"[A-Za-z0-9_.-]{1,60}")
KEY_CHARS = 8  # a code with so many characters of the key's beginning is not shown
PARAMETER_STATUSES = {400, 422}  # a parameter is not supported
SIZE_STATUSES = {400, 413, 422}  # the prompt is too long
# What OpenAI, Azure, vLLM, llama.cpp, LM Studio, TGI, Gemini, Groq and Anthropic's gateways say.
TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size"
    r"|context[ _-]?(length|size|window)"
    r"|(prompt|input|request|message|conversation)s?\b(?:(?!max_)[^.]){0,40}\btoo (long|large)"
    r"|too many (input |prompt )?tokens|reduce the length|reduce your prompt"
    r"|token (count|limit)[^.]{0,60}exceed|exceed[^.]{0,60}\btoken|max_new_tokens"
)


@dataclass(frozen=True)
class ServiceError:
    """A refusal. ``code`` and ``kind`` (OpenAI's type) are "" if missing.

    ``words`` is the body in lower case, to look in; it is never shown or logged.
    """

    status: int
    code: str
    kind: str
    words: str

    @property
    def reason(self) -> str:
        """``status 401 (invalid_api_key)``: safe to show and to log."""
        return f"status {self.status} ({self.code})" if self.code else f"status {self.status}"

    @property
    def is_too_long(self) -> bool:
        """Whether the server says that the prompt is longer than its model's window."""
        return self.status in SIZE_STATUSES and bool(TOO_LONG.search(self.words))

    def names(self, parameter: str) -> bool:
        """Whether the server refuses a request because of this parameter or role."""
        is_named = re.search(rf"\b{parameter}\b", self.words)
        return self.status in PARAMETER_STATUSES and is_named is not None


def parse_service_error(status: int, body: bytes, *, key: str) -> ServiceError:
    """The error of a response with this body. ``key``: what was sent, so that it is not shown."""
    error = _error_of(body)
    code = shown_code(error.get("code"), key=key)
    kind = str(error.get("type") or "")
    return ServiceError(status, code, kind, body.decode(errors="replace").lower())


def shown_code(code: Any, *, key: str) -> str:
    """The code if it may be shown, else ""."""
    text = str(code) if isinstance(code, (str, int)) else ""
    holds_key = bool(key) and (key == text or (len(key) >= KEY_CHARS and key[:KEY_CHARS] in text))
    return text if CODE.fullmatch(text) and not holds_key else ""


def _error_of(body: bytes) -> dict[str, Any]:
    """The error object; {} for a page of HTML, or for another form."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(answer, list) and answer:  # Gemini's endpoint puts it into a list
        answer = answer[0]
    error = answer.get("error", answer) if isinstance(answer, dict) else {}
    return error if isinstance(error, dict) else {}
