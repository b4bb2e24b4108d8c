"""Recall by words in many languages, with and without spaces; the language can be changed."""

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection

from chat.models import StandaloneChat, StandaloneChatMessage
from retrieval.recall import search_config
from retrieval.recall.candidates import Scope
from retrieval.recall.messages import recall
from retrieval.recall.question import LONG_CHARS, extract_question
from retrieval.recall.search_config import MONTHS

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]

# A message, and a question with another form of one of its words.
SAID = {
    "english": ("My sister keeps two lizards at home.", "What does she do with her lizard?"),
    "french": ("Ma sœur adore les crêpes à la châtaigne.", "les CREPES?"),
    "german": ("Wir haben gestern drei Häuser besichtigt.", "Welches Haus war es?"),
    "russian": ("Мы вчера ходили в музеи на площади.", "Какой музей?"),
    "chinese": ("我昨天在北京大学遇见了我的老师。", "北京大学怎么样?"),
    "japanese": ("週末は東京タワーに行きました。", "東京タワーはどうでしたか"),
    "thai": ("ฉันไปเที่ยวกรุงเทพเมื่อวานนี้", "กรุงเทพเป็นอย่างไร"),
    "korean": ("어제 서울에 있는 박물관에 갔어요.", "박물관은 어땠어요?"),
}
OTHERS = (
    "Dinner was good.",
    "Il fait beau.",
    "Es regnet.",
    "Хорошо.",
    "今天天气很好。",
    "元気です。",
    "ขอบคุณ",
    "네",
)


@pytest.fixture(autouse=True)
def english(db: None) -> Iterator[None]:
    """English again after each test: search_configs is not emptied between tests."""
    yield
    search_config.switch("english")


def say(chat: StandaloneChat, content: str, day: datetime | None = None) -> int:
    """Returns the message's ref."""
    message = StandaloneChatMessage.objects.create(
        user=chat.user,
        conversation=chat,
        role="user",
        content=content,
        **({"created_at": day} if day else {}),
    )
    return int(message.memory_table.pack_ref(message.pk))


def recalled(user: User, question: str) -> list[int]:
    """Refs of what words alone recall, best first."""
    return [match.ref for match in recall(question, Scope(user.pk), embedding=None)]


@pytest.mark.parametrize("language", SAID)
def test_a_word_is_found_in_its_language(language: str, alice: User, chat: StandaloneChat) -> None:
    if language in MONTHS:
        call_command("rag_text", "use", language, stdout=io.StringIO())
    for other in OTHERS:
        say(StandaloneChat.objects.create(user=alice), other)
    text, question = SAID[language]
    wanted = say(chat, text)
    assert recalled(alice, question)[:1] == [wanted]


def test_accents_and_widths_do_not_matter(alice: User, chat: StandaloneChat) -> None:
    wanted = say(chat, "Zoë ate a crème brûlée at the Café.")
    for question in ("zoe", "creme", "CAFÉ", "ｂｒｕｌｅｅ", "cafe\u0301"):
        assert recalled(alice, question) == [wanted]


def test_a_date_is_found_in_the_current_language(alice: User, chat: StandaloneChat) -> None:
    call_command("rag_text", "use", "german", stdout=io.StringIO())
    wanted = say(chat, "Brot gekauft.", datetime(2024, 3, 5, tzinfo=UTC))
    say(
        StandaloneChat.objects.create(user=alice),
        "Milch gekauft.",
        datetime(2024, 5, 6, tzinfo=UTC),
    )
    assert recalled(alice, "Was war am 5. März?")[:1] == [wanted]


def test_the_backfill_indexes_messages_in_the_new_language(
    alice: User, chat: StandaloneChat
) -> None:
    wanted = say(chat, "Wir haben gestern drei Häuser besichtigt.")
    call_command("rag_text", "use", "german", stdout=io.StringIO())
    assert recalled(alice, "Haus") == []
    with pytest.raises(CommandError, match="no embedding model is configured"):
        call_command("backfill_embeddings", stdout=io.StringIO())
    assert recalled(alice, "Haus") == [wanted]
    out = io.StringIO()
    call_command("rag_text", "--json", stdout=out)
    assert json.loads(out.getvalue()) == {"config": "german", "current": 1, "other": 0}


def test_an_unknown_language_changes_nothing(alice: User) -> None:
    with pytest.raises(CommandError, match="no text search configuration klingon; it has"):
        call_command("rag_text", "use", "klingon", stdout=io.StringIO())
    with connection.cursor() as cursor:
        cursor.execute("SELECT config FROM search_configs WHERE current")
        assert cursor.fetchall() == [("pg_catalog.english",)]


def test_the_question_of_a_long_message_is_its_last_sentence() -> None:
    page = "Bread is baked every day. " * 400
    assert extract_question(page + "What is the name of my dog?") == "What is the name of my dog?"
    assert (
        extract_question(page + "\nWhat is the name of my dog? Thanks!")
        == "What is the name of my dog? Thanks!"
    )
    sentence = "昨日の会議で話した予算の件について、もう一度教えてください。"
    assert extract_question("短い。" * 400 + sentence) == sentence
    assert extract_question("Short. What?") == "Short. What?"
    assert len(extract_question("x" * 2 * LONG_CHARS)) <= LONG_CHARS


def test_a_long_question_finds_what_its_last_sentence_finds(
    alice: User, chat: StandaloneChat
) -> None:
    wanted = say(chat, "The lighthouse keeper's parrot is called Bosun.")
    for number in range(60):
        say(
            StandaloneChat.objects.create(user=alice),
            f"Bread number {number} wants rye and patience.",
        )
    page = "Rye bread wants flour, patience and a warm oven. " * 200
    assert recalled(alice, page + "What was the parrot of the keeper called?")[:1] == [wanted]


@pytest.mark.parametrize(
    "question", ["the and of", "🙂🙂", "'\"' & | ! <-> :*", "\ud800", "a" * 10_000, "𠀋", "ー"]
)
def test_odd_questions_never_fail(question: str, alice: User, chat: StandaloneChat) -> None:
    say(chat, "Bread.")
    recalled(alice, question.encode("utf-8", "replace").decode())
