"""Texts as the embeddings API takes them, packed into as few calls as its limits allow."""

from collections.abc import Iterable, Iterator

from retrieval.tokens import encode, encoding

# What OpenAI takes; https://platform.openai.com/docs/api-reference/embeddings/create, "input": 2,048 texts and
# 300,000 tokens a call, 8,192 tokens a text. Below them, in case its count is not ours to the token.
MAX_CALL_TEXTS = 2_048
MAX_CALL_TOKENS = 290_000
MAX_TEXT_TOKENS = 8_191


def pack(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in their order, made acceptable, in lists of which each fits one call."""
    call: list[str] = []
    call_tokens = 0
    for text, tokens in map(_fit, texts):
        if call and (len(call) == MAX_CALL_TEXTS or call_tokens + tokens > MAX_CALL_TOKENS):
            yield call
            call, call_tokens = [], 0
        call.append(text)
        call_tokens += tokens
    if call:
        yield call


def sendable(text: str) -> str:
    """The text as UTF-8 can hold it, half a surrogate pair as U+FFFD; a space for a blank one, which is refused."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if text.strip() else " "


def _fit(text: str) -> tuple[str, int]:
    """The text, or its beginning that is not too long, and how many tokens that has."""
    text = sendable(text)
    tokens = encode(text)
    most = MAX_TEXT_TOKENS
    while len(tokens) > MAX_TEXT_TOKENS:
        text = encoding().decode(tokens[:most], errors="ignore")  # the cut can fall inside a character
        tokens = encode(text)
        most -= max(len(tokens) - MAX_TEXT_TOKENS, 0)  # at its end the text can split otherwise than before
    return text, len(tokens)
