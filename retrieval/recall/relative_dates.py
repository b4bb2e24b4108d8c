"""The dates that a question names by the day on which it is asked: "yesterday", "letzte Woche".

As words, by which recall finds messages of that time: a message's terms contain the day, the month
and the year when it was written. Measured in docs/decisions/0017-recall-order.md, "Time".
"""

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from retrieval import db
from retrieval.models import MessageMemory
from retrieval.recall.content_words import guess_language, plain
from retrieval.recall.search_config import months_of

DAY = timedelta(days=1)
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


class Period(NamedTuple):
    """Days that a question names, and the words that find messages of them."""

    first: date
    last: date
    words: str


def words_of_dates(question: str, *, user_id: int, asked_at: datetime) -> str:
    """What the question names and the user wrote at: "28 november 2026", "november 2026".

    No query for a question without such dates, else one for each. Raises NoMemory.
    """
    named = periods(question, asked_at.date())
    return " ".join(period.words for period in named if _has_messages(user_id, period))


def _has_messages(user_id: int, period: Period) -> bool:
    first, last = (datetime.combine(day, time(), UTC) for day in (period.first, period.last))
    with db.require_memory():
        messages = MessageMemory.objects.filter(user_id=user_id)
        return messages.filter(created_at__gte=first, created_at__lt=last + DAY).exists()


def periods(question: str, today: date) -> list[Period]:
    """Days, last week as its month, and last month."""
    text, named = plain(question), []
    if YESTERDAY.search(text) or (HIER.search(text) and guess_language(question) == "french"):
        named.append(_day(today - DAY))
    if DAY_BEFORE.search(text):
        named.append(_day(today - 2 * DAY))
    numbers = (_number(match[match.lastindex or 0]) for match in DAYS_AGO.finditer(text))
    named.extend(_day(today - number * DAY) for number in numbers)
    if LAST_WEEK.search(text):
        week_ago = today - 7 * DAY
        named.append(Period(week_ago - 7 * DAY, today - DAY, _month(week_ago)))
    if LAST_MONTH.search(text):
        end = today.replace(day=1) - DAY
        named.append(Period(end.replace(day=1), end, _month(end)))
    return named


def _day(day: date) -> Period:
    return Period(day, day, f"{day.day} {_month(day)}")


def _month(day: date) -> str:
    return f"{months_of('english')[day.month - 1]} {day.year}"


def _number(word: str) -> int:
    if word.isdigit():
        return int(word)
    return next(n for n, words in enumerate(NUMBERS, 1) if word in words)
