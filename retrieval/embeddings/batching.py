"""Groups texts into as few embedding calls as the API's limits allow."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from retrieval.token_count import beginning, encode, encoding

# OpenAI's limits: 2,048 texts and 300,000 tokens a call, 8,192 tokens a text (the parameter "input"
# of https://platform.openai.com/docs/api-reference/embeddings/create). Ours are slightly lower,
# because OpenAI may count tokens differently.
MAX_CALL_TEXTS = 2_048
MAX_CALL_TOKENS = 290_000
MAX_TEXT_TOKENS = 8_191


class TextBatch(NamedTuple):
    """The texts of one API call, and the number of tokens of each."""

    texts: list[str]
    tokens: list[int]


class TruncatedText(NamedTuple):
    """A text that the API accepts, and its number of tokens."""

    text: str
    tokens: int


def batch_texts(texts: Iterable[str]) -> Iterator[TextBatch]:
    """Group the texts, in order, into the fewest calls; each text is truncated if necessary."""
    batch, batch_tokens = TextBatch([], []), 0
    for text, tokens in map(truncate, texts):
        is_full = len(batch.texts) == MAX_CALL_TEXTS or batch_tokens + tokens > MAX_CALL_TOKENS
        if batch.texts and is_full:
            yield batch
            batch, batch_tokens = TextBatch([], []), 0
        batch.texts.append(text)
        batch.tokens.append(tokens)
        batch_tokens += tokens
    if batch.texts:
        yield batch


def sendable(text: str) -> str:
    """The text with each lone surrogate as U+FFFD. A blank text becomes a space: "" is refused."""
    if not text.strip():
        return " "
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def truncate(text: str) -> TruncatedText:
    """The beginning of the text that has at most MAX_TEXT_TOKENS tokens."""
    text = sendable(text)
    tokens = beginning(text, MAX_TEXT_TOKENS)
    limit = MAX_TEXT_TOKENS
    while len(tokens) > MAX_TEXT_TOKENS:
        # The cut can fall inside a character, and the end can then split into more tokens.
        text = encoding().decode(tokens[:limit], errors="ignore")
        tokens = encode(text)
        limit -= max(len(tokens) - MAX_TEXT_TOKENS, 0)
    return TruncatedText(text, len(tokens))
