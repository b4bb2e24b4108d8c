"""The part of a long text that has the most words of a question."""

import re

from retrieval.recall.content_words import WORD, content_words, plain
from retrieval.recall.question import extract_question
from retrieval.token_count import count_tokens, count_up_to, cut_middle

MARK = "[…]"
# A line with its end, or a sentence of a long line.
PIECE = re.compile(r"[^\n]{1,400}?(?:[.!?。！？](?=\s|$)|\n|$)\n*|[^\n]{1,400}\n*|\n+")


def words_to_match(question: str) -> frozenset[str]:
    """The content words of what the message asks, as ``excerpt`` compares them."""
    return frozenset(WORD.findall(plain(content_words(extract_question(question)))))


def excerpt(text: str, wanted: frozenset[str], *, max_tokens: int) -> str:
    """The text itself if it fits, else the lines around its best match, with a mark at each cut.

    The best line has the most of the wanted words, in the same form; of equals, the first. Without
    any it keeps both ends, as ``cut_middle`` does.
    """
    if count_up_to(max_tokens, text) <= max_tokens:
        return text
    if wanted.isdisjoint(WORD.findall(plain(text))):
        return cut_middle(text, max_tokens=max_tokens)
    pieces = PIECE.findall(text)
    matches = [len(wanted.intersection(WORD.findall(plain(piece)))) for piece in pieces]
    best = max(matches)
    left = max_tokens - 2 * count_tokens(f"{MARK}\n")
    if not best:  # the word is longer than a piece
        return cut_middle(text, max_tokens=max_tokens)
    return _around(pieces, matches.index(best), max_tokens=left) or cut_middle(
        text, max_tokens=max_tokens
    )


def _around(pieces: list[str], middle: int, *, max_tokens: int) -> str:
    """The piece in the middle with as many after and before it as fit; '' if it does not fit."""
    first, end, left = middle, middle + 1, max_tokens - _size(pieces[middle])
    if left < 0:
        return ""
    while end < len(pieces) and (size := _size(pieces[end])) <= left:
        left -= size
        end += 1
    while first and (size := _size(pieces[first - 1])) <= left:
        first -= 1
        left -= size
    before, after = (f"{MARK}\n" if first else ""), (f"\n{MARK}" if end < len(pieces) else "")
    return before + "".join(pieces[first:end]).strip("\n") + after


def _size(piece: str) -> int:
    return count_tokens(piece) + 1  # joined, they can be a token more
