"""The demo's sample conversations: their files are complete and agree. No database."""

import json
from datetime import UTC, datetime
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from chat import samples

FOLDER = Path(samples.__file__).parent
FIELDS = ["user", "conversation", "kind", "role", "content", "created_at"]
MIN_MESSAGES = 150  # with fewer, five recalled ones would be a large share of all


@cache
def messages() -> list[dict[str, str]]:
    """The lines of conversations.jsonl, in the file's order."""
    lines = (FOLDER / "conversations.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def conversations() -> list[list[dict[str, str]]]:
    """The messages of each conversation, as they follow each other in the file."""
    return [
        list(group)
        for _, group in groupby(
            messages(), key=lambda message: (message["kind"], message["conversation"])
        )
    ]


def read(name: str) -> Any:
    """What a JSON file of the samples holds."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def test_there_are_enough_messages_of_both_kinds() -> None:
    assert len(messages()) >= MIN_MESSAGES
    assert {message["kind"] for message in messages()} == {"chat", "passage"}


def test_every_message_has_exactly_the_fields_and_is_text() -> None:
    for message in messages():
        assert list(message) == FIELDS
        assert all(isinstance(value, str) for value in message.values())
        assert message["user"] == "demo"


def test_no_message_is_empty_or_long() -> None:
    assert [
        message for message in messages() if not 0 < len(message["content"].strip()) < 2000
    ] == []


def test_a_conversation_is_contiguous_and_has_its_own_name() -> None:
    names = [talk[0]["conversation"] for talk in conversations()]
    assert len(names) == len(set(names))


def test_the_user_begins_and_the_roles_alternate() -> None:
    for talk in conversations():
        roles = [message["role"] for message in talk]
        assert roles == ["user", "assistant"] * (len(talk) // 2)


def test_time_passes_within_a_conversation() -> None:
    for talk in conversations():
        times = [datetime.fromisoformat(message["created_at"]) for message in talk]
        assert all(time.tzinfo == UTC for time in times)
        assert all(earlier < later for earlier, later in pairwise(times))


def test_every_passage_has_its_text_and_every_text_its_conversation() -> None:
    texts = read("passages.json")
    assert set(texts) == {
        message["conversation"] for message in messages() if message["kind"] == "passage"
    }
    assert all(0 < len(text.splitlines()) <= 12 for text in texts.values())


def test_every_question_has_its_answer_once_among_the_messages() -> None:
    questions = read("questions.json")
    contents = [message["content"] for message in messages()]
    assert len(questions) == 5
    for question in questions:
        assert list(question) == ["question", "expected", "why"]
        assert contents.count(question["expected"]) == 1
