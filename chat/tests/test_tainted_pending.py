"""An answer that was given something forgotten since is neither embedded nor pending, anywhere."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import User

from chat.memory.state import memory_state
from chat.models import Role, StandaloneChat
from fake_openai import FakeOpenAI
from retrieval.backfill import estimate
from retrieval.doctor import check_pending
from retrieval.embed_queue.worker import EmbedWorker
from retrieval.tests.backfill_support import query, run

pytestmark = [pytest.mark.django_db, pytest.mark.newest_schema]
OLD = "UPDATE standalone_chat_messages SET created_at = created_at - interval '2 hours'"


@pytest.fixture
def chat(alice: User) -> StandaloneChat:
    """A question and two answers; the second was given a message that is deleted since."""
    chat = StandaloneChat.objects.create(user=alice)

    def say(role: str, content: str, **fields: Any) -> Any:
        return chat.messages.create(user=alice, role=role, content=content, **fields)

    fact, question = say(Role.USER, "The key is under the stone"), say(Role.USER, "And the dog?")
    say(Role.ASSISTANT, "It is well", reply_to=question.pk)
    given = [{"kind": "chat", "id": fact.pk, "score": 1.0}]
    say(Role.ASSISTANT, "It sleeps on the stone", reply_to=question.pk, context=given)
    query(OLD)
    fact.delete()
    return chat


def bought(fake: FakeOpenAI) -> set[str]:
    return {text for call in fake.embeddings.requests for text in call.texts}


def test_a_backfill_leaves_it_and_counts_it_nowhere(
    chat: StandaloneChat, remembering: FakeOpenAI
) -> None:
    assert estimate.estimate(exact=True).messages == 2
    assert memory_state(chat.user_id)["pending"] == 2
    assert json.loads(run("--dry-run", "--json").out)["pending"]["standalone_chat_messages"] == 2
    assert run().code == 0
    assert bought(remembering) == {"And the dog?", "It is well"}
    assert memory_state(chat.user_id)["pending"] == 0
    assert [count.pending for count in check_pending._counts()] == [0, 0]


def test_a_worker_leaves_it(chat: StandaloneChat, remembering: FakeOpenAI) -> None:
    worker = EmbedWorker()
    refs = [message.pk * 2 for message in chat.messages.all()]
    for table_run in worker._runs():
        worker._embed_named(table_run, refs)
    worker._sweep()
    worker._sweep()
    assert bought(remembering) == {"And the dog?", "It is well"}
