"""Leaves out a question's function words, in the question's own language.

Messages are stemmed by one configuration for the whole database, so the function words of any other
language would count as rare words. Needs no query and no column.
"""

import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from retrieval.recall.search_config import MONTHS, months_of

LISTS = Path(__file__).with_name("function_words.txt")
LANGUAGE_SAMPLE_CHARS = 600  # of a text, read to guess its language
MIN_FUNCTION_WORDS = 2
WORD = re.compile(r"[^\W_]+")
ACCENT = re.compile("[\u0300-\u036f]")  # as a character of its own
# Chinese has no spaces, so its terms are pairs of characters. A pair that contains one of these
# characters carries no content.
HAN = re.compile(
    "[我你妳您他她它们們的地得了是在有和与與就都也不没沒这這那哪什么麼谁誰里裡几幾多少怎吗嗎呢"
    "过過吧啊呀嘛请請问問给給把被跟对對从從到要想会會能可以还還又再很]"
)
CHINESE_MONTH = re.compile("(十[一二]|[一二三四五六七八九十]|1[0-2]|[1-9])月")
CHINESE_NUMBERS = ["一", "二", "三", "四", "五", "六", "七", "八", "九", "十", "十一", "十二"]
KANA = re.compile("[\u3040-\u30ff]")  # in Japanese the same characters are parts of words


def content_words(question: str) -> str:
    """The question without its function words and asking words; blank if nothing else is in it.

    Each left-out word becomes a space. Also adds the months' English names, where the question
    names months in another language: a message's terms contain the month when it was written.
    """
    language = guess_language(question)
    no_words = frozenset[str]()
    left_out = function_words().get(language, no_words) | asking_words().get(language, no_words)
    left = WORD.sub(lambda word: " " if plain(word[0]) in left_out else word[0], question)
    months = "".join(f" {month}" for month in _english_months(question, language))
    return (left if KANA.search(left) else HAN.sub(" ", left)) + months


def guess_language(text: str) -> str:
    """The language to which most words belong as function words; '' if that is not clear.

    It is not clear with fewer than MIN_FUNCTION_WORDS, for "dog" is a function word in Danish, or
    if another language has as many.
    """
    words = WORD.findall(plain(text[:LANGUAGE_SAMPLE_CHARS]))
    counts = {
        name: sum(map(of_language.__contains__, words))
        for name, of_language in function_words().items()
    }
    best, second = sorted(counts, key=lambda name: counts[name], reverse=True)[:2]
    is_clear = counts[best] >= MIN_FUNCTION_WORDS and counts[best] > counts[second]
    return best if is_clear else ""


def _english_months(question: str, language: str) -> list[str]:
    """The months that a question in another language names."""
    numbers = [
        CHINESE_NUMBERS.index(month) if month in CHINESE_NUMBERS else int(month) - 1
        for month in CHINESE_MONTH.findall(question)
    ]
    if language != "english" and language in MONTHS:
        names = [plain(name) for name in months_of(language)]
        words = WORD.findall(plain(question))
        numbers += [names.index(word) for word in words if word in names]
    return [months_of("english")[number] for number in numbers]


def plain(text: str) -> str:
    """The text without case and accents, as message_terms (current.sql) stores words."""
    return ACCENT.sub("", unicodedata.normalize("NFKD", text.casefold()))


@cache
def function_words() -> Mapping[str, frozenset[str]]:
    """The stop words of PostgreSQL's text search, by language."""
    return {name: frozenset(words.split()) for name, (words, _) in _lists().items()}


@cache
def asking_words() -> Mapping[str, frozenset[str]]:
    """Words with which people ask and remember, such as "remind", by language."""
    return {name: frozenset(words.split()) for name, (_, words) in _lists().items()}


@cache
def _lists() -> Mapping[str, tuple[str, str]]:
    """The two lists of the file, function words and asking words, by language."""
    _, *parts = re.split(r"^\[(\w+)\]$", LISTS.read_text(), flags=re.MULTILINE)
    texts = (text.partition("asking:") for text in parts[1::2])
    both = ((function, asking) for function, _, asking in texts)
    return dict(zip(parts[::2], both, strict=True))
