"""The demo's sample conversations: their files are whole and agree with each other. No database."""

import json
from datetime import UTC, datetime
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from chat import samples

FOLDER = Path(samples.__file__).parent
FIELDS = ["user", "conversation", "kind", "role", "content", "created_at"]
LEAST_MESSAGES = 150  # with fewer, the first five recalled would be a good part of all


@cache
def messages() -> list[dict[str, str]]:
    """The lines of conversations.jsonl, in the file's order."""
    lines = (FOLDER / "conversations.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def conversations() -> list[list[dict[str, str]]]:
    """The messages of each conversation, as they follow each other in the file."""
    return [
        list(group)
        for _, group in groupby(messages(), key=lambda one: (one["kind"], one["conversation"]))
    ]


def read(name: str) -> Any:
    """What a JSON file of the samples holds."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def test_there_are_enough_messages_of_both_kinds() -> None:
    assert len(messages()) >= LEAST_MESSAGES
    assert {one["kind"] for one in messages()} == {"chat", "passage"}


def test_every_message_has_exactly_the_fields_and_is_text() -> None:
    for one in messages():
        assert list(one) == FIELDS
        assert all(isinstance(value, str) for value in one.values())
        assert one["user"] == "demo"


def test_no_message_is_empty_or_long() -> None:
    assert [one for one in messages() if not 0 < len(one["content"].strip()) < 2000] == []


def test_a_conversation_is_told_in_one_go_and_has_its_own_name() -> None:
    names = [talk[0]["conversation"] for talk in conversations()]
    assert len(names) == len(set(names))


def test_the_user_begins_and_the_roles_alternate() -> None:
    for talk in conversations():
        roles = [one["role"] for one in talk]
        assert roles == ["user", "assistant"] * (len(talk) // 2)


def test_time_passes_within_a_conversation() -> None:
    for talk in conversations():
        times = [datetime.fromisoformat(one["created_at"]) for one in talk]
        assert all(time.tzinfo == UTC for time in times)
        assert all(earlier < later for earlier, later in pairwise(times))


def test_every_passage_has_its_text_and_every_text_its_conversation() -> None:
    texts = read("passages.json")
    assert set(texts) == {one["conversation"] for one in messages() if one["kind"] == "passage"}
    assert all(0 < len(text.splitlines()) <= 12 for text in texts.values())


def test_every_question_has_its_answer_once_among_the_messages() -> None:
    questions = read("questions.json")
    contents = [one["content"] for one in messages()]
    assert len(questions) == 5
    for one in questions:
        assert list(one) == ["question", "expected", "why"]
        assert contents.count(one["expected"]) == 1
