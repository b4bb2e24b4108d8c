"""What OpenAI refuses to embed; https://platform.openai.com/docs/api-reference/embeddings/create, "input"."""

from collections.abc import Callable
from typing import Any

from fake_openai.behaviours import Refuse
from fake_openai.endpoint import invalid
from fake_openai.record import RecordedRequest

MAX_INPUTS = 2_048
MAX_INPUT_TOKENS = 8_192
MAX_REQUEST_TOKENS = 300_000
MAX_DIMENSIONS = 3_072  # text-embedding-3-large

# The messages are OpenAI's, as people quote them: openai-python issue 576, spiceai issue 6142.
BAD_INPUT = "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference."


def problem_of(request: RecordedRequest, count_tokens: Callable[[str], int]) -> Refuse | None:
    """The 400 that OpenAI would give this embeddings request, or None."""
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


def _is_valid(given: Any) -> bool:
    """A text, texts, token numbers, or lists of them; nothing empty."""
    if not isinstance(given, list):
        return isinstance(given, str) and given != ""
    same_kind = any(all(isinstance(one, kind) for one in given) for kind in (str, int, list))
    return same_kind and 0 < len(given) <= MAX_INPUTS and "" not in given and [] not in given


def _problem_of_tokens(counts: list[int]) -> Refuse | None:
    if max(counts) > MAX_INPUT_TOKENS:
        return invalid(
            f"This model's maximum context length is {MAX_INPUT_TOKENS} tokens, however you requested "
            f"{max(counts)} tokens ({max(counts)} in your prompt; 0 for the completion). "
            "Please reduce your prompt; or completion length."
        )
    if sum(counts) > MAX_REQUEST_TOKENS:
        message = f"Requested {sum(counts)} tokens, max {MAX_REQUEST_TOKENS} tokens per request"
        return Refuse(400, "max_tokens_per_request", message, kind="max_tokens_per_request")
    return None
