"""The dates that a question names by the day on which it is asked: "yesterday", "letzte Woche".

As words, by which recall finds messages of that time: a message's terms contain the day, the month
and the year when it was written. Measured in docs/decisions/0017-recall-order.md, "Time".
"""

import re
from collections.abc import Iterator
from datetime import date, timedelta

from retrieval.recall.content_words import guess_language, plain
from retrieval.recall.search_config import months_of

NUMBERS = (
    ("one", "einem", "un", "一"),
    ("two", "zwei", "dos", "deux", "两", "二"),
    ("three", "drei", "tres", "trois", "三"),
    ("four", "vier", "cuatro", "quatre", "四"),
    ("five", "funf", "cinco", "cinq", "五"),
    ("six", "sechs", "seis", "六"),
)
NUMBER = rf"(\d\d?|{'|'.join(word for words in NUMBERS for word in words)})"
# In texts without case and accents.
YESTERDAY = re.compile(r"(?<!before )\byesterday\b|\bgestern\b|\bayer\b|昨[天晚]")
HIER = re.compile(r"(?<!avant[- ])\bhier\b")  # in German it means "here"
DAY_BEFORE = re.compile(
    r"\bday before yesterday\b|\bvorgestern\b|\banteayer\b|\bavant[- ]hier\b|前天"
)
DAYS_AGO = re.compile(
    rf"\b{NUMBER} days? ago\b|\bvor {NUMBER} tag(?:en)?\b|\bhace {NUMBER} dias?\b"
    rf"|\bil y a {NUMBER} jours?\b|{NUMBER}天前"
)
LAST_WEEK = re.compile(
    r"\blast week\b|\b(?:letzte|vorige|vergangene)[nr]? woche\b|\bsemana pasada\b"
    r"|\bsemaine derniere\b|上个?(?:星期|礼拜|周)"
)
LAST_MONTH = re.compile(
    r"\blast month\b|\b(?:letzte|vorige|vergangene)[nrms]? monats?\b|\bmes pasado\b"
    r"|\bmois dernier\b|上个?月"
)


def words_of_dates(question: str, today: date) -> str:
    """What the question names: "28 november 2026", of a week or month "november 2026"."""
    text, is_french = plain(question), guess_language(question) == "french"
    words = [_words(day, has_day) for day, has_day in _days(text, is_french, today)]
    return " ".join(words)


def _days(text: str, is_french: bool, today: date) -> Iterator[tuple[date, bool]]:
    """Days, and whether only that day is meant or its month."""
    if YESTERDAY.search(text) or (is_french and HIER.search(text)):
        yield today - timedelta(days=1), True
    if DAY_BEFORE.search(text):
        yield today - timedelta(days=2), True
    for match in DAYS_AGO.finditer(text):
        yield today - timedelta(days=_number(match[match.lastindex or 0])), True
    if LAST_WEEK.search(text):
        yield today - timedelta(days=7), False
    if LAST_MONTH.search(text):
        yield today.replace(day=1) - timedelta(days=1), False


def _number(word: str) -> int:
    if word.isdigit():
        return int(word)
    return next(n for n, words in enumerate(NUMBERS, 1) if word in words)


def _words(day: date, has_day: bool) -> str:
    month = f"{months_of('english')[day.month - 1]} {day.year}"
    return f"{day.day} {month}" if has_day else month
