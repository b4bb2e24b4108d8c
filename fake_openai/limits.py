"""Limits of embeddings requests.

Source: https://platform.openai.com/docs/api-reference/embeddings/create, "input".
"""

from collections.abc import Callable
from typing import Any

from fake_openai.behaviours import Refuse
from fake_openai.endpoint import invalid
from fake_openai.record import RecordedRequest

MAX_INPUTS = 2_048
MAX_INPUT_TOKENS = 8_192
MAX_REQUEST_TOKENS = 300_000
MAX_DIMENSIONS = 3_072  # text-embedding-3-large

# OpenAI's messages as quoted in openai-python issue 576 and spiceai issue 6142.
BAD_INPUT = (
    "'$.input' is invalid. Please check the API reference: "
    "https://platform.openai.com/docs/api-reference."
)


def problem_of(request: RecordedRequest, count_tokens: Callable[[str], int]) -> Refuse | None:
    """The 400 that OpenAI would answer to this embeddings request, or None."""
    if request.body is None:
        return invalid("We could not parse the JSON body of your request.")
    if not isinstance(request.fields.get("model"), str):
        return invalid("you must provide a model parameter")
    return _problem_of_form(request) or _problem_of_tokens(
        [count_tokens(text) for text in request.texts]
    )


def _problem_of_form(request: RecordedRequest) -> Refuse | None:
    if not _is_valid(request.fields.get("input")):
        return invalid(BAD_INPUT)
    size = request.fields.get("dimensions", 1)
    if not isinstance(size, int) or not 1 <= size <= MAX_DIMENSIONS:
        return invalid("Invalid value for 'dimensions'.")
    return None


def _is_valid(inputs: Any) -> bool:
    """A text, texts, token numbers, or lists of them; nothing empty."""
    if not isinstance(inputs, list):
        return isinstance(inputs, str) and inputs != ""
    same_kind = any(all(isinstance(item, kind) for item in inputs) for kind in (str, int, list))
    return same_kind and 0 < len(inputs) <= MAX_INPUTS and "" not in inputs and [] not in inputs


def _problem_of_tokens(counts: list[int]) -> Refuse | None:
    if max(counts) > MAX_INPUT_TOKENS:
        return invalid(
            f"This model's maximum context length is {MAX_INPUT_TOKENS} tokens, "
            f"however you requested {max(counts)} tokens "
            f"({max(counts)} in your prompt; 0 for the completion). "
            "Please reduce your prompt; or completion length."
        )
    if sum(counts) > MAX_REQUEST_TOKENS:
        message = f"Requested {sum(counts)} tokens, max {MAX_REQUEST_TOKENS} tokens per request"
        return Refuse(400, "max_tokens_per_request", message, kind="max_tokens_per_request")
    return None
