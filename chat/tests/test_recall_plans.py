"""Recall reads a user's own rows, by the indexes made for it, and of many messages only some."""

from collections.abc import Callable

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.db import connection

from chat.models import StandaloneChat, StandaloneChatMessage
from chat.tests.plan_support import MESSAGES, reads_of
from retrieval import storage
from retrieval.models import message_tables
from retrieval.recall import candidates
from retrieval.recall.candidates import Scope
from retrieval.recall.messages import Question, fetch, rank_messages
from retrieval.recall.ranking import MAX_EXACT

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
SIZES = [20, 700, 2_500, 2_501, 20_000, pytest.param(200_000, marks=pytest.mark.soak)]
OTHERS = 5_000
QUESTION = "Is there a river by the attic with the piano?"
VECTOR = np.random.default_rng(1).standard_normal(1536, dtype=np.float32)
# A word in every second message, one in every tenth, one in every hundredth, and one of its own.
# Rows of memory as the triggers would write them for messages with a vector each: recall's plans
# need only its signs.
FILL = """
    INSERT INTO message_memories (id, user_id, conversation, created_at, by_user, terms, chars,
        is_question, search_config_id, bits, model)
    SELECT r.*, (SELECT string_agg(lpad(('x' || md5(n::text || k))::bit(128)::text, 128), '')
            FROM generate_series(1, 12) k)::bit(1536),
        (SELECT id FROM embedding_models WHERE current)
    FROM generate_series(1, %(count)s) n CROSS JOIN LATERAL memory_row(
        0, %(chat)s::bigint * 1000000 + n, %(user)s, %(chat)s::bigint * 1000 + n / 400,
        now() - n * interval '1 minute',
        CASE n %% 2 WHEN 0 THEN 'user' ELSE 'assistant' END,
        'Bread ' || CASE n %% 2 WHEN 0 THEN 'river ' ELSE '' END
            || CASE n %% 10 WHEN 0 THEN 'piano ' ELSE '' END
            || CASE n %% 100 WHEN 0 THEN 'attic ' ELSE '' END || md5(n::text)) r
"""


def fill(user: User, count: int) -> None:
    """``count`` rows of memory for the user, of conversations with 400 messages each."""
    chat = StandaloneChat.objects.create(user=user)
    with connection.cursor() as cursor:
        cursor.execute(FILL, {"user": user.pk, "chat": chat.pk, "count": count})


@pytest.fixture
def among_others(alice: User) -> User:
    """Alice, without messages yet, where another user has many."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE message_memories")
        cursor.execute("INSERT INTO embedding_models (name, current) VALUES ('a model', true)")
    fill(User.objects.create(username="carol"), OTHERS)
    return alice


def ranking_of(user: User, *, by_meaning: bool) -> Callable[[], object]:
    """Recall's first statement, to be called."""
    question = Question(QUESTION, Scope(user.pk), VECTOR if by_meaning else None, "a model")
    return lambda: rank_messages(question)


@pytest.mark.parametrize("by_meaning", [True, False])
@pytest.mark.parametrize("count", SIZES)
def test_ranking_reads_the_users_rows_by_its_indexes(
    count: int, by_meaning: bool, among_others: User
) -> None:
    fill(among_others, count)
    reads = reads_of(ranking_of(among_others, by_meaning=by_meaning))
    assert reads.whole_tables == 0  # though there are no statistics yet
    storage.vacuum(message_tables())
    reads = reads_of(ranking_of(among_others, by_meaning=by_meaning))
    assert reads.whole_tables == reads.of(*MESSAGES) == 0
    by_user = reads.of("message_memories_recall", "message_memories_user")
    if count <= candidates.MAX_ROWS:
        assert by_user == 2 * count  # to count them, and to read them
        assert reads.of("message_memories") <= 4 * count  # the messages of three words, and these
    else:
        # By meaning the signs of all, then the neighbours of the seeds; from the index alone where
        # pages are known to be visible to all.
        max_near = 7 * (candidates.WORD_SEEDS_ALONE + candidates.MEANING_SEEDS)
        by_user += reads.of("message_memories_turns")
        # By words alone that most messages have, a second statement takes the latest with a word.
        statements = 1 if by_meaning else 2
        assert by_user <= statements * 10_000 + by_meaning * count + 2 * max_near
        frequent = 0 if by_meaning else candidates.ALL_TERMS["max_term_messages"]
        max_rows = 3 * (candidates.MAX_TERM_MESSAGES + frequent + 1) + 2 * max_near
        assert reads.of("message_memories") <= max_rows + statements * 10_000 + by_meaning * count


def test_fetching_reads_few_messages_of_many(among_others: User) -> None:
    chat = StandaloneChat.objects.create(user=among_others)
    StandaloneChatMessage.objects.bulk_create(
        StandaloneChatMessage(
            user=among_others,
            conversation=chat,
            role="assistant" if number % 2 else "user",
            content=f"The river {number} by the attic.",
            embedding=VECTOR,
        )
        for number in range(300)
    )
    question = Question(QUESTION, Scope(among_others.pk), VECTOR, "a model")
    ranking = rank_messages(question)
    for _ in ("before the statistics know", "after"):
        reads = reads_of(lambda: fetch(question, ranking, limit=10, companions=False))
        assert reads.whole_tables == 0
        # Reads the similarity of all that are equally good; text and companion of the best only.
        assert 10 < reads.of(*MESSAGES, "message_memories") <= 3 * MAX_EXACT + 2 * 10
        storage.vacuum(message_tables())
