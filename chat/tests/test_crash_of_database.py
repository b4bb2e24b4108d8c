"""What a crash of the database may lose is stored again with the answer."""

import pytest
from django.contrib.auth.models import User

from chat.answers import save_answer, turns
from chat.answers.save_answer import Ending
from chat.models import StandaloneChat, Status
from retrieval.token_usage import Tokens

pytestmark = pytest.mark.django_db
MEMORIES = [{"kind": "chat", "id": 7, "score": 1.0}]


@pytest.mark.parametrize("tokens", [None, Tokens(1, 1, 0)])
def test_an_answer_is_stored_with_the_memories_that_a_crash_lost(
    tokens: Tokens | None, alice: User
) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    turn = turns.start(chat, "Where is the piano?", key=None)
    save_answer.save_context(turn.answer, MEMORIES)
    chat.messages.update(context=None)  # its commit did not wait for the disk
    save_answer.finish(
        turn.answer,
        "In the attic.",
        Ending(Status.COMPLETE),
        running_id=turn.running_id,
        tokens=tokens,
    )
    turn.answer.refresh_from_db()
    assert (turn.answer.status, turn.answer.content) == ("complete", "In the attic.")
    assert turn.answer.context[: len(MEMORIES)] == MEMORIES
