"""The admin's list of messages reads as much of a big table as of a small one."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from chat.message_lists import find as finding
from chat.message_lists import states
from chat.message_lists.find import Position, Query, Selection, find
from chat.models import StandaloneChatMessage
from chat.tests.plan_support import reads_of
from retrieval import storage
from retrieval.models import EmbeddingModel, message_tables

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]


@pytest.fixture
def models() -> tuple[int, int]:
    """An earlier model and the current one."""
    old = EmbeddingModel.objects.create(name="an earlier model", current=False)
    return old.pk, EmbeddingModel.objects.create(name="a model", current=True).pk


MANY = 20_000
# Every third message is one user's; few failed, few are pending, most have the current model.
FILL = """
    SET session_replication_role = replica;
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email,
        is_staff, is_active, date_joined)
    SELECT 'user' || n, '!', false, '', '', '', false, true, now() FROM generate_series(1, 50) n;
    INSERT INTO standalone_chats (user_id, memory)
    SELECT id, true FROM auth_user WHERE username LIKE 'user%%';
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, status, content, created_at)
    SELECT c.user_id, c.id, CASE n %% 2 WHEN 0 THEN 'user' ELSE 'assistant' END,
        CASE WHEN n %% 1000 = 1 THEN 'failed' ELSE 'complete' END, 'message ' || n,
        now() - n * interval '1 minute'
    FROM generate_series(1, %(many)s) n JOIN standalone_chats c ON c.id = (
        SELECT min(id) FROM standalone_chats) + CASE WHEN n %% 3 = 0 THEN 0 ELSE n %% 50 END;
    INSERT INTO message_memories (id, user_id, conversation, created_at, by_user, terms, chars,
        model, embedding_error)
    SELECT id * 2, user_id, chat_id * 2, created_at, role = 'user', '{}', 10,
        CASE WHEN id %% 500 > 1 THEN %(model)s END, CASE WHEN id %% 500 = 1 THEN '400' END
    FROM standalone_chat_messages;
    SET session_replication_role = origin
"""


@pytest.fixture
def many(models: tuple[int, int]) -> list[int]:
    """MANY messages; the ids of their users."""
    with connection.cursor() as cursor:
        cursor.execute(FILL, {"many": MANY, "model": models[1]})
    storage.vacuum(message_tables())
    return list(User.objects.filter(username__startswith="user").values_list("pk", flat=True))


def test_no_list_reads_more_of_a_bigger_table(
    many: list[int], models: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "MAX_LOOKED_AT", 200)
    ago = datetime.now(UTC) - timedelta(days=5)
    queries: list[dict[str, Any]] = [
        {},
        *({"role": role} for role in ("user", "assistant")),
        *({"status": status} for status in ("complete", "failed", "interrupted", "streaming")),
        *({"state": state} for state in states.STATES),
        *({"model": model} for model in models),
        {"since": ago},
        {"until": ago, "state": "off"},
        {"since": ago, "until": ago, "role": "user"},
        *({"users": users} for users in (many[:1], many[-1:], many)),
        {"users": many[:1], "status": "failed", "state": "pending", "role": "user"},
        {"users": many, "state": "failed", "until": ago},
        {"users": [], "pk": 1},
        {"state": "pending", "status": "failed", "role": "user", "model": models[0]},
        {"state": "embedded", "status": "interrupted", "until": ago},
    ]
    beyond = Position.parse("-" + "9" * 30)
    for before in (None, Position(MANY // 2, ago), beyond):
        for query in queries:
            reads = reads_of(partial(read, Query(**query, before=before)))
            assert reads.whole_tables == 0, (query, reads)
            # The entries of the candidates, and up to two rows, by two indexes, for each.
            assert sum(reads.rows.values()) <= 8 * 200 + 200, (query, reads)


def read(query: Query) -> Selection:
    """What a page of the list reads."""
    selection = find(StandaloneChatMessage, query)
    page = list(StandaloneChatMessage.objects.filter(pk__in=selection.ids[:50]).defer("content"))
    states.add_states(StandaloneChatMessage.memory_table, page)
    return selection
