"""Data sets for benchmarks.memory: users, what was said, and questions with known evidence.

The project's own is memory_data/people.json. Files in the format of docs/evaluation.md can be
added; they are not part of the project.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "memory_data"


@dataclass(frozen=True)
class Said:
    """A message; ``chat`` tells the user's conversations apart."""

    ref: str
    chat: str
    role: str
    content: str
    created_at: str


@dataclass(frozen=True)
class Asked:
    """A question. Each of ``evidence`` is a set of refs, of which one is enough.

    ``asked_at``: None for a question that does not depend on it.

    ``stale``: refs of what was true before.
    """

    text: str
    category: str
    evidence: list[set[str]]
    stale: list[str] = field(default_factory=list)
    asked_at: datetime | None = None


@dataclass(frozen=True)
class Person:
    """A user of a data set."""

    name: str
    messages: list[Said]
    questions: list[Asked]


@dataclass(frozen=True)
class DataSet:
    """Some persons."""

    name: str
    people: list[Person]


def load(paths: list[Path]) -> list[DataSet]:
    """The project's own set, then one for each file."""
    return [own(), *map(from_file, paths)]


def own() -> DataSet:
    """memory_data/people.json, with a day for each chat and half a minute for each message."""
    people = json.loads((FOLDER / "people.json").read_text())["people"]
    return DataSet("own", [_own_person(name, person) for name, person in people.items()])


def small_talk() -> dict[str, list[str]]:
    """Greetings and general questions, by language: for these nothing should be recalled."""
    questions: dict[str, list[str]] = json.loads((FOLDER / "small_talk.json").read_text())
    return questions


def from_file(path: Path) -> DataSet:
    """A file in the format of docs/evaluation.md."""
    conversations = json.loads(path.read_text())["conversations"]
    return DataSet(path.stem, [_file_person(conversation) for conversation in conversations])


def _own_person(name: str, person: dict[str, Any]) -> Person:
    messages = []
    for number, (day, *contents) in enumerate(person["chats"]):
        began = datetime.fromisoformat(f"{day}T18:00:00").replace(tzinfo=UTC)
        for place, content in enumerate(contents):
            at = (began + timedelta(seconds=30 * place)).isoformat()
            role = "assistant" if place % 2 else "user"
            messages.append(Said(f"{number}.{place}", str(number), role, content, at))
    questions = [
        Asked(text, category, [{ref} for ref in evidence], *stale)
        for text, category, evidence, *stale in person["questions"]
    ]
    return Person(name, messages, questions)


def _file_person(conversation: dict[str, Any]) -> Person:
    messages = [
        Said(row["ref"], str(row["session"]), row["role"], row["content"], row["created_at"])
        for row in conversation["messages"]
    ]
    questions = []
    for row in conversation["questions"]:
        same = row.get("alternatives", {})
        evidence = [{ref, *same.get(ref, [])} for ref in row["evidence"]]
        category = str(row["category"])
        asked_at = datetime.fromisoformat(row["asked_at"]) if row.get("asked_at") else None
        stale = row.get("stale", [])
        questions.append(Asked(row["question"], category, evidence, stale, asked_at))
    return Person(conversation["conversation"], messages, questions)
