"""Loads the sample conversations: for `make demo`, and for tests that ask its five questions."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chat.models import Passage, StandaloneChat
from chat.transfer.importing import import_lines

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Question:
    """A question about the samples, the message that holds its answer, and what it shows."""

    question: str
    expected: str
    why: str


def load(user: Any) -> int:
    """Import the conversations as this user's. Returns the number of new messages."""
    lines = _lines(user.get_username())
    imported = import_lines(lines, create_users=False, skip_bad=False, progress=lambda _: None)
    for reference, text in _read("passages.json").items():
        Passage.objects.filter(user=user, source=reference, text=reference).update(text=text)
    return imported.messages


def has_conversations(user: Any) -> bool:
    """Whether the user has any, also of their own. Two queries."""
    return any(kind.objects.of(user).exists() for kind in (StandaloneChat, Passage))


def has_samples(user: Any) -> bool:
    """Whether the user has sample conversations. One query."""
    names = _read("passages.json")
    return bool(Passage.objects.of(user).filter(source__in=list(names)).exists())


def questions() -> list[Question]:
    return [Question(**fields) for fields in _read("questions.json")]


def _lines(username: str) -> Iterator[bytes]:
    for line in (FOLDER / "conversations.jsonl").read_text().splitlines():
        yield json.dumps(json.loads(line) | {"user": username}).encode() + b"\n"


def _read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())
