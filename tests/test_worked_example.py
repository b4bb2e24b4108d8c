"""The numbers of docs/how-memory-works.md are those of the code and the bundled model."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User

from chat.models import StandaloneChat, StandaloneChatMessage
from retrieval import current_model, runtime, storage
from retrieval.embeddings import bundled_models
from retrieval.recall.candidates import Scope
from retrieval.recall.messages import recall
from tests.support import ROOT

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
PAGE = (ROOT / "docs/how-memory-works.md").read_text()
SAID = re.compile(r"^\| ([A-Z]\w+, \d+ May)? *\| (user|Verse) \| (.+?) \|$", re.MULTILINE)
SCORED = re.compile(
    r"^\| (.+?) \| [\d.]+ \| ([\d.]+) \| .+ \| [−\d.]+ \| \**([\d.]+)\** \|$", re.MULTILINE
)


def test_the_worked_example_of_the_docs_is_right(alice: User) -> None:
    runtime.reset()
    current_model.check_model(bundled_models.MINILM)
    texts = {}
    at = datetime(2024, 5, 3, 9, tzinfo=UTC)
    chat = StandaloneChat()
    for title, who, content in SAID.findall(PAGE):
        if title:
            chat = StandaloneChat.objects.create(user=alice, title=title)
            at = datetime(2024, 5, int(title.split()[1]), 9, tzinfo=UTC)
        at += timedelta(minutes=1)
        message = StandaloneChatMessage.objects.create(
            user=alice,
            conversation=chat,
            role="user" if who == "user" else "assistant",
            content=content,
            created_at=at,
        )
        source = message.memory_table
        (vector,) = bundled_models.embed([content], bundled_models.MINILM)
        storage.store(source, message.pk, content, vector, model=bundled_models.MINILM)
        texts[source.pack_ref(message.pk)] = content
    assert len(texts) == 10
    (question,) = bundled_models.embed(["Who waters my tomatoes?"], bundled_models.MINILM)
    ranked = recall(
        "Who waters my tomatoes?", Scope(alice.pk), embedding=question, model=bundled_models.MINILM
    )
    shown = SCORED.findall(PAGE)
    assert len(shown) == 5
    for match, (text, cosine, score) in zip(ranked, shown, strict=False):
        assert texts[match.ref] == text
        assert match.score == pytest.approx(float(score), abs=0.002)
        assert match.similarity == pytest.approx(float(cosine), abs=0.002)
    assert max(match.score for match in ranked[5:]) < 0.01
