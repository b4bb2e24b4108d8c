"""Recognizes greetings and thanks, for which nothing is recalled, in five languages."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from retrieval.recall.content_words import WORD, function_words, plain

PHRASES = Path(__file__).with_name("greetings.txt")
MAX_CHARS = 80  # longer ones say more
BEFORE_WORDS = re.compile(r"^\W+")


class Phrases(NamedTuple):
    """One language's greetings, and what may stand next to them."""

    greetings: re.Pattern[str]
    fillers: re.Pattern[str]
    function_words: frozenset[str]


def is_greeting(text: str) -> bool:
    """Whether the text only greets, or only thanks, and begins with that.

    Nothing else in it may have a meaning: "Thanks, and what was my dog's name?" is a question, and
    so is "Was it a good night?".
    """
    if len(text) > MAX_CHARS:
        return False
    words = BEFORE_WORDS.sub("", plain(text).replace("’", "'"))
    return any(_only_greets(words, phrases) for phrases in _phrases().values())


def _only_greets(text: str, phrases: Phrases) -> bool:
    if not phrases.greetings.match(text):
        return False
    rest = phrases.fillers.sub(" ", phrases.greetings.sub(" ", text))
    words = WORD.findall(rest)
    # Function words can ask: "Good morning, where was I?"
    return not words or ("?" not in rest and phrases.function_words.issuperset(words))


@cache
def _phrases() -> Mapping[str, Phrases]:
    _, *parts = re.split(r"^\[(\w+)\]$", PHRASES.read_text(), flags=re.MULTILINE)
    by_language = {}
    for language, text in zip(parts[::2], parts[1::2], strict=True):
        greetings, _, fillers = text.partition("fillers:")
        has_spaces = language != "chinese"
        by_language[language] = Phrases(
            _any_of(greetings, whole_words=has_spaces),
            _any_of(fillers, whole_words=has_spaces),
            function_words().get(language, frozenset()),
        )
    return by_language


def _any_of(lines: str, *, whole_words: bool) -> re.Pattern[str]:
    """The longest phrase first, so that a part of it does not leave the rest."""
    phrases = sorted(lines.strip().splitlines(), key=len, reverse=True)
    either = "|".join(map(re.escape, phrases))
    return re.compile(rf"\b(?:{either})\b" if whole_words else either)
