"""Texts as the embeddings API takes them, packed into as few calls as its limits allow."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from retrieval.token_count import encode, encoding

# What OpenAI takes; https://platform.openai.com/docs/api-reference/embeddings/create, "input": 2,048 texts and
# 300,000 tokens a call, 8,192 tokens a text. Below them, in case its count is not ours to the token.
MAX_CALL_TEXTS = 2_048
MAX_CALL_TOKENS = 290_000
MAX_TEXT_TOKENS = 8_191


class Call(NamedTuple):
    """Texts for one API call, made acceptable, and how many tokens they have."""

    texts: list[str]
    tokens: int


def pack(texts: Iterable[str]) -> Iterator[Call]:
    """The texts in their order, in calls as few as the limits allow."""
    packed: list[str] = []
    packed_tokens = 0
    for text, tokens in map(fit, texts):
        if packed and (len(packed) == MAX_CALL_TEXTS or packed_tokens + tokens > MAX_CALL_TOKENS):
            yield Call(packed, packed_tokens)
            packed, packed_tokens = [], 0
        packed.append(text)
        packed_tokens += tokens
    if packed:
        yield Call(packed, packed_tokens)


def sendable(text: str) -> str:
    """The text as UTF-8 can hold it, half a surrogate pair as U+FFFD; a space for a blank one, which is refused."""
    return (
        text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if text.strip() else " "
    )


def fit(text: str) -> tuple[str, int]:
    """The text, or its beginning that is not too long, and how many tokens that has."""
    text = sendable(text)
    tokens = encode(text)
    most = MAX_TEXT_TOKENS
    while len(tokens) > MAX_TEXT_TOKENS:
        text = encoding().decode(
            tokens[:most], errors="ignore"
        )  # the cut can fall inside a character
        tokens = encode(text)
        most -= max(
            len(tokens) - MAX_TEXT_TOKENS, 0
        )  # at its end the text can split otherwise than before
    return text, len(tokens)
