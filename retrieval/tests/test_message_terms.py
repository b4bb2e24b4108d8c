"""message_terms, the words of a text in the database: which they are, and what long texts take."""

from typing import Any

import pytest
from django.db import connection

from retrieval.queries import value
from tests.databases import Database

pytestmark = [pytest.mark.django_db, pytest.mark.newest_schema]
TERMS = "SELECT array(SELECT unnest(message_terms(7, %s, '2024-05-03')) ORDER BY 1)"
CHARS = 50_000  # at most so many are read; a message has 32,000
CHINESE = "".join(chr(0x4E00 + (number * 7919) % 20_000) for number in range(CHARS))

# Each is read like English, with words, or for the pairs of neighbouring characters.
SHORT_TEXTS = [
    "",
    "The cat is called Mirabel, at 3 May.",
    "José said “naïve café”, e\u0301t\u00e9",
    "猫的名字是米拉。它很喜欢睡觉，你呢？",
    "猫 a 犬b鼠",
    "日本語のカタカナ ｶﾞｷﾞ と ｱ",
    "고양이 이름은 미라벨 입니다",
    "แมวชื่อมิราเบล ชอบนอน",
    "ﷺ ﷲ ½ ㌀",
    "see https://example.com/a/b-c_d?e=f@g and ~/notes/../x.txt, mail first.last@example.com",
    "snake_case_name, state-of-the-art, 550e8400-e29b-41d4-a716-446655440000, a@b, 1a@2b@3c",
    "how-to-do-this-or-that-in-ten-steps",
    "----------------------------------\n| a_b | c-d |",
    "_" * 40 + " under " + "~" * 40,
    CHINESE[:2_000],
]

# Texts that PostgreSQL's parser, or a search for pairs, would read again from each character.
LONG_TEXTS = {
    "Chinese": CHINESE,
    "Japanese": "".join(chr(0x3041 + number * number % 80) for number in range(CHARS)),
    "Korean": "".join(chr(0xAC00 + number * 7919 % 11_000) for number in range(CHARS)),
    "letters of Hangul": "\u1100\u1161" * (CHARS // 2),
    "Thai": "".join(chr(0xE01 + number * number % 46) for number in range(CHARS)),
    "halves of Kana": "ｶﾞ" * (CHARS // 2),
    "addresses": "1a@" * (CHARS // 3),
    "paths": "~/" * (CHARS // 2),
    "paths with points": "./" * (CHARS // 2),
    "names with underscores": "a_" * (CHARS // 2),
    "hyphens": "-".join(f"{number:04x}" for number in range(CHARS // 5)),
}


def terms_of(text: str) -> set[int]:
    return set(value("SELECT message_terms(7, %s)", [text]))


def test_short_texts_have_the_same_terms_as_before(database: Database) -> None:
    database.start_at("0008_recall")
    before = [database.run(TERMS, text) for text in SHORT_TEXTS]
    database.migrate("chat")
    after = [database.run(TERMS, text) for text in SHORT_TEXTS]
    assert after == before
    database.migrate("chat", "0008_recall")
    assert [database.run(TERMS, text) for text in SHORT_TEXTS] == before


@pytest.mark.parametrize("text", LONG_TEXTS.values(), ids=LONG_TEXTS.keys())
def test_the_terms_of_a_long_text_come_in_no_time(text: str) -> None:
    with connection.cursor() as cursor:
        # Takes 5 to 30 ms; from 3 s to minutes if it grows with the square of the length.
        cursor.execute("SET LOCAL statement_timeout = '1s'")
        cursor.execute("SELECT message_terms(7, %s)", [text])


def test_long_texts_without_spaces_are_read_at_both_ends() -> None:
    terms = terms_of(CHINESE[:20_000])
    assert terms_of(CHINESE[:3_000]) <= terms
    assert terms_of(CHINESE[17_000:20_000]) <= terms
    assert not terms_of(CHINESE[10_000:10_002]) & terms


def test_words_between_long_runs_without_spaces_are_all_read() -> None:
    text = "".join(f"{CHINESE[at : at + 1_000]} bees{at} " for at in range(0, 20_000, 1_000))
    words: set[Any] = set()
    for at in range(0, 20_000, 1_000):
        words |= terms_of(f"bees{at}")
    assert len(words) == 20
    assert words <= terms_of(text)


def test_a_text_that_grows_when_it_is_normalized_keeps_its_date() -> None:
    dated = set(value("SELECT message_terms(7, %s, '2024-05-03')", ["ﷺ" * CHARS]))
    assert terms_of("may 2024") <= dated
