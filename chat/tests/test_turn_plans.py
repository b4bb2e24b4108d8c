"""The statements of a turn and of lists read few rows, however many there are, by any plan.

Those of recall: test_recall_plans.py, test_skewed_statistics.py; of the vectors of equal texts:
retrieval/tests/test_known_embeddings.py.
"""

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from chat import rate_limit
from chat.answers import heartbeat, turn_statements
from chat.auth import api_tokens
from chat.find_conversation import FIND
from chat.memory.memory_settings import SELECT_SETTINGS
from chat.models import StandaloneChat, StandaloneChatMessage
from chat.row_lists import CONVERSATION_LISTS, MESSAGE_LISTS, TOKEN_LIST, RowList
from chat.tests.plan_support import plan_of
from retrieval import queries, storage, token_usage

# One transaction, rolled back with its statistics; autovacuum does not see its rows.
pytestmark = [pytest.mark.django_db, pytest.mark.newest_schema]
CROWD = 3_000  # rows of others in each table
OWN = 100  # tokens, chats and passages of alice
MESSAGES = 1_000  # in alice's first chat
RUNNING = 20  # answers of others: the table holds nothing else, and may be read as a whole
LIMIT = 21  # of CHAT_HISTORY_LIMIT=40: answers that a turn reads
FILL = """
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email, is_staff,
        is_active, date_joined)
    SELECT 'user' || n, '', false, '', '', '', false, true, now()
    FROM generate_series(1, %(crowd)s) n;
    CREATE TEMPORARY TABLE owner ON COMMIT DROP AS
        SELECT id, n FROM auth_user CROSS JOIN LATERAL generate_series(
            1, CASE WHEN id = %(user)s THEN %(own)s ELSE 1 END) n;
    INSERT INTO api_tokens (user_id, name, digest, created_at)
    SELECT id, '', sha256((id || ' ' || n)::bytea), now() - n * interval '1 hour' FROM owner;
    INSERT INTO standalone_chats (user_id, created_at)
    SELECT id, now() - n * interval '1 hour' FROM owner;
    INSERT INTO passages (user_id, reference, text, created_at)
    SELECT id, 'Tobit ' || n, 'Fish', now() - n * interval '1 hour' FROM owner;
    ALTER TABLE standalone_chat_messages DISABLE TRIGGER USER;
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    SELECT c.user_id, c.id, CASE n %% 2 WHEN 0 THEN 'user' ELSE 'assistant' END, 'Number ' || n,
        now() - n * interval '1 minute'
    FROM (SELECT min(id) AS id, user_id FROM standalone_chats GROUP BY user_id) c
        JOIN LATERAL generate_series(
            1, CASE WHEN user_id = %(user)s THEN %(messages)s ELSE 2 END) n ON true;
    INSERT INTO running_answers (user_id, chat_id, message_id)
    SELECT user_id, id, id FROM standalone_chats WHERE user_id <> %(user)s LIMIT %(running)s;
    INSERT INTO rate_windows (name, hits) SELECT 'messages ' || id, ARRAY[now()] FROM auth_user;
    INSERT INTO user_token_usage
    SELECT id, day, 1, 1, 1, 1 FROM auth_user CROSS JOIN LATERAL generate_series(
        now()::date - CASE WHEN id = %(user)s THEN %(own)s ELSE 0 END, now()::date, '1 day') day;
    INSERT INTO token_usage SELECT day, part, 1 FROM generate_series(0, 15) part,
        generate_series(now()::date - %(own)s, now()::date, '1 day') day;
    ANALYZE auth_user, api_tokens, standalone_chats, passages, standalone_chat_messages,
        running_answers, rate_windows, user_token_usage, token_usage
"""
Params = dict[str, Any]


def of_chats(statements: dict[Any, str]) -> str:
    """The statement for standalone chats, without the setting before it."""
    return statements[StandaloneChatMessage].rpartition("synchronous_commit = off;")[2]


def of_table(statement: Any) -> str:
    return str(statement.format(**StandaloneChatMessage.memory_table.names).as_string())


def of_list(rows: RowList[Any]) -> dict[str, tuple[str, int]]:
    """A list's statements; all may read the owner's rows, at most OWN."""
    return {
        f"list of {statement.partition('FROM')[2][:30]}{order}": (statement, OWN)
        for order, statement in rows.statements.items()
    }


# How many rows each statement may read, entries of indexes included.
STATEMENTS: dict[str, tuple[str, int]] = {
    "the token": (api_tokens.FIND, 2),
    "the conversation": (FIND[StandaloneChat], 1),
    "lock of the user": (turn_statements.LOCK_USER, 1),
    "rate limit": (rate_limit.COUNT, 1),
    "wait of the rate limit": (rate_limit.WAIT, 1),
    "new turn": (of_chats(turn_statements.ADD_TURN), 6 + RUNNING),
    "the same turn again": (of_chats(turn_statements.TOUCH), 2 + RUNNING),
    # The answers, the user's messages between them, and each answer's question.
    "history": (of_chats(turn_statements.HISTORY), 4 * LIMIT),
    "memory settings": (SELECT_SETTINGS, 1 + 2 * OWN),  # of the user's conversations
    "context": (of_chats(turn_statements.SAVE_CONTEXT), 1),
    "end of an answer": (of_chats(turn_statements.FINISH), 2 + RUNNING),
    "end of a counted answer": (of_chats(turn_statements.FINISH_AND_COUNT), 4 + RUNNING),
    "tokens of today": (token_usage.USED_TODAY, 1 + token_usage.PARTS),
    "tokens of a month": (token_usage.REPORT, 31),
    "flags": (heartbeat.FLAGS, 2 + RUNNING),
    "heartbeat": (heartbeat.HEARTBEAT, 1 + RUNNING),
    "vector of an equal text": (of_table(storage.EMBEDDINGS), 2),
    "storing a vector": (of_table(storage.STORE), 2),
    **of_list(TOKEN_LIST),
    **of_list(CONVERSATION_LISTS[StandaloneChat]),
}


@pytest.fixture
def alices(alice: User) -> Params:
    """Parameters of the statements: alice's, among the rows of many others."""
    counts = {"crowd": CROWD, "own": OWN, "messages": MESSAGES, "running": RUNNING}
    queries.execute(FILL, {"user": alice.pk} | counts)
    question = StandaloneChatMessage.objects.filter(user=alice).in_order().last()
    assert question
    now = timezone.now()
    ids = dict.fromkeys(("id", "answer", "answer_id", "question"), question.pk)
    times = {"now": now, "asked_at": now, "at": now - timedelta(days=1)}
    values = {"content": "Hello", "context": "[]", "status": "complete", "error": None}
    return (
        token_usage.Tokens(1, 1, 1, 1).parameters(alice.pk)
        | ids
        | times
        | values
        | {
            "user": alice.pk,
            "owner": alice.pk,
            "conversation": question.conversation_id,
            "digest": b"none",
            "name": f"messages {alice.pk}",
            "seconds": 60,
            "mark_lifetime_s": 3,
            "running_id": 0,
            "max_running": 5,
            "truncated": False,
            "entries": None,
            "limit": LIMIT,
            "ids": [question.pk, 0],
            "texts": ["so far", "so far"],
            "embedding": np.ones(1536, dtype=np.float32),
            "model": "a model",
        }
    )


@pytest.fixture
def forced(request: pytest.FixtureRequest) -> None:
    """Make all plans ``custom`` or ``generic`` until the end of the transaction."""
    mode = f"force_{request.param}_plan"
    queries.execute("SELECT set_config('plan_cache_mode', %s, true)", [mode])


def rows_read(node: dict[str, Any]) -> int:
    """How many rows and entries of indexes a plan has read, with those that a filter removed."""
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    own = (node["Actual Rows"] + removed) * node["Actual Loops"] if "Relation Name" in node else 0
    return int(own) + sum(map(rows_read, node.get("Plans", [])))


def rows_read_by(statement: str, params: Params) -> int:
    """How many rows the statement reads; what it changes is rolled back."""
    with transaction.atomic():
        plan = plan_of(statement, params)
        transaction.set_rollback(True)
    return rows_read(plan)


@pytest.mark.parametrize("forced", ["custom", "generic"], indirect=True)
@pytest.mark.usefixtures("forced")
def test_each_statement_reads_few_rows_of_many(alices: Params) -> None:
    read = {name: rows_read_by(text, alices) for name, (text, _) in STATEMENTS.items()}
    assert {name: rows for name, rows in read.items() if rows > STATEMENTS[name][1]} == {}


@pytest.mark.parametrize("forced", ["custom", "generic"], indirect=True)
@pytest.mark.usefixtures("forced")
def test_a_page_of_messages_reads_its_own_rows_only(alices: Params) -> None:
    params = alices | {"owner": alices["conversation"], "limit": 3}
    params["at"] = alices["now"] - timedelta(minutes=MESSAGES / 2)
    for statement in MESSAGE_LISTS[StandaloneChatMessage].statements.values():
        assert rows_read_by(statement, params) <= 3 + 1, statement
