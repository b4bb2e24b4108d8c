"""What "yesterday" and "last week" mean on the day when they are asked, in five languages."""

from datetime import UTC, date, datetime

import pytest
from django.contrib.auth.models import User

from chat.models import StandaloneChat, StandaloneChatMessage
from retrieval.recall.candidates import Scope
from retrieval.recall.messages import recall
from retrieval.recall.relative_dates import periods

TODAY = date(2026, 3, 2)
DATES = {
    "What did I say yesterday?": "1 march 2026",
    "Who came the day before yesterday?": "28 february 2026",
    "What was it three days ago?": "27 february 2026",
    "What broke last week?": "february 2026",
    "And last month?": "february 2026",
    "Was habe ich gestern gesagt?": "1 march 2026",
    "Was war vorgestern beim Arzt?": "28 february 2026",
    "Was war vor fünf Tagen?": "25 february 2026",
    "Was ist letzte Woche passiert?": "february 2026",
    "¿Qué dije ayer?": "1 march 2026",
    "¿Qué comimos anteayer?": "28 february 2026",
    "¿Qué pasó hace 4 días?": "26 february 2026",
    "¿Y el mes pasado?": "february 2026",
    "qu'est-ce que j'ai dit hier": "1 march 2026",
    "et avant-hier, on a vu qui ?": "28 february 2026",
    "il y a deux jours je t'ai parlé d'un vélo": "28 february 2026",
    "on a fait quoi la semaine dernière ?": "february 2026",
    "昨天我说了什么？": "1 march 2026",
    "三天前发生了什么？": "27 february 2026",
    "上个礼拜爸出了什么事": "february 2026",
}
NO_DATES = ["Wer wohnt hier in der Straße?", "What is on Monday?", "hier", "last", "999 days ago"]


@pytest.mark.parametrize("question", DATES)
def test_a_date_is_named_by_the_day_of_the_question(question: str) -> None:
    assert [period.words for period in periods(question, TODAY)] == [DATES[question]]


@pytest.mark.parametrize("question", NO_DATES)
def test_other_questions_name_no_date(question: str) -> None:
    assert periods(question, TODAY) == []


def remember_pulses(user: User, *days: int) -> None:
    """The same message on days of May."""
    chat = StandaloneChat.objects.create(user=user)
    StandaloneChatMessage.objects.bulk_create(
        StandaloneChatMessage(
            user=user,
            conversation=chat,
            role="user",
            content="I have measured my pulse.",
            created_at=datetime(2026, 5, day, 9, tzinfo=UTC),
        )
        for day in days
    )


@pytest.mark.django_db
@pytest.mark.newest_schema
@pytest.mark.parametrize("day", [10, 20])
def test_recall_prefers_messages_of_the_named_day(day: int, alice: User) -> None:
    remember_pulses(alice, 5, 10, 15, 20)
    scope = Scope(alice.pk, asked_at=datetime(2026, 5, day + 1, 12, tzinfo=UTC))
    best, *_ = recall("What was my pulse yesterday?", scope, embedding=None)
    assert best.created_at.day == day


@pytest.mark.django_db
@pytest.mark.newest_schema
def test_a_day_without_messages_changes_nothing(alice: User) -> None:
    remember_pulses(alice, 5, 20)  # but none on 5 June
    scope = Scope(alice.pk, asked_at=datetime(2026, 6, 6, 12, tzinfo=UTC))
    best, *_ = recall("What was my pulse yesterday?", scope, embedding=None)
    assert best.created_at.day == 20
