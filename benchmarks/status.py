"""Measures rag_status and the admin's lists with many messages.

    .venv/bin/python -m benchmarks.status [--rows 1000000]

Uses a scratch database on the configured server. The messages are short, and their vectors are all
zero and stored compressed, so that a million rows need two minutes and 1 GB.
"""

import argparse
import os
import time
from collections.abc import Callable

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from benchmarks.backfill import query
from benchmarks.stage import scratch_database
from chat.bounded_admin import BoundedPaginator
from chat.models import StandaloneChatMessage
from retrieval import current_model, db, status
from retrieval.backfill.pending import for_table
from retrieval.models import message_tables

SOURCE = message_tables()[0]
USERS = 2_000
FILL = """
    ALTER TABLE standalone_chat_messages DISABLE TRIGGER ALL;
    ALTER TABLE standalone_chat_messages ALTER embedding SET STORAGE EXTENDED;
    DROP INDEX idx_standalone_messages_embedding;
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email,
        is_staff, is_active, date_joined)
    SELECT 'user' || n, '!', false, '', '', '', false, true, now()
    FROM generate_series(1, %(users)s) n;
    INSERT INTO standalone_chats (user_id, memory) SELECT id, id %% 100 <> 0 FROM auth_user;
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at, embedding)
    SELECT c.user_id, c.id, 'user', 'Number ' || n || ' said of bread and dogs',
        now() - n * interval '1 minute', CASE WHEN n %% 10 <> 0 THEN zeros.vector END
    FROM generate_series(1, %(rows)s) n CROSS JOIN (
        SELECT array_fill(0, ARRAY[1536])::vector AS vector) zeros
    JOIN standalone_chats c ON c.id = (SELECT min(id) FROM standalone_chats) + n %% %(users)s;
    INSERT INTO message_memories (id, user_id, conversation, created_at, by_user, terms, chars,
        is_question, bits, model)
    SELECT m.id * 2, user_id, chat_id * 2, created_at, true, ARRAY[m.id], 10, false,
        CASE WHEN embedding IS NOT NULL THEN repeat('0', 1536)::bit(1536) END,
        CASE WHEN embedding IS NOT NULL THEN e.id END
    FROM standalone_chat_messages m CROSS JOIN embedding_models e;
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    with scratch_database():
        current_model.check_model("text-embedding-3-small")
        query(FILL, {"rows": options.rows, "users": USERS})
        query("VACUUM (ANALYZE) standalone_chat_messages, message_memories", {})
        print(f"| {options.rows:,} messages, seconds: best of three | |\n|---|---|")
        report("rag_status", status.collect)
        report("its counts of both tables", lambda: [*map(status.count_messages, message_tables())])
        report("the same, row by row", count_by_row)
        report("the admin's count of messages", lambda: BoundedPaginator(everything(), 100).count)


def report(name: str, work: Callable[[], object]) -> None:
    """Print a line."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    print(f"| {name} | {min(times):.2f} |", flush=True)


def count_by_row() -> None:
    """What rag_status does if a vector has no model."""
    for table in message_tables():
        db.execute(for_table(status.COUNT_BY_ROW, table), {})


def everything() -> object:
    """The admin's list without a search."""
    return StandaloneChatMessage.objects.order_by("-pk")


if __name__ == "__main__":
    main()
