"""Measures expire_conversations with many messages: how long it locks, and how long others wait.

    .venv/bin/python -m benchmarks.retention [--messages 1000000] [--expired 200000]

Uses a scratch database on the configured server. Conversations have 20 messages; the oldest ones
are expired, one in a hundred of these is kept, and one has as many messages as 250 others. Each
expired message is in memory. Meanwhile another session writes to the conversations that stay, as
turns do; what it waits for is measured. Afterwards no canary, one in each expired message, may be
left. The time of a transaction is that of the steps between two commits: its locks last no longer.
"""

import argparse
import os
import threading
import time
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from django.db import connection

from benchmarks.stage import scratch_database
from chat.retention import expired
from retrieval import queries

DAYS = 365
PER_CHAT = 20
FILL = """
    ALTER TABLE standalone_chat_messages DISABLE TRIGGER ALL;
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email,
        is_staff, is_active, date_joined)
    SELECT 'user' || n, '!', false, '', '', '', false, true, now()
    FROM generate_series(1, 1000) n;
    INSERT INTO standalone_chats (user_id, created_at, updated_at)
    SELECT (SELECT min(id) FROM auth_user) + n %% 1000, at, at
    FROM (SELECT n, now() - CASE WHEN n <= %(expired)s / %(per_chat)s THEN interval '2 years'
        ELSE interval '1 day' END AS at FROM generate_series(1, %(messages)s / %(per_chat)s) n) c;
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    SELECT c.user_id, c.id, CASE n %% 2 WHEN 0 THEN 'user' ELSE 'assistant' END,
        CASE WHEN c.updated_at < now() - interval '1 year' THEN 'canary ' ELSE '' END
            || n || ' said of bread and dogs ' || repeat(md5(c.id::text || n), 5), c.updated_at
    FROM standalone_chats c, generate_series(1, %(per_chat)s) n;
    UPDATE standalone_chat_messages SET chat_id = first.id, user_id = first.user_id
    FROM (SELECT id, user_id FROM standalone_chats ORDER BY id LIMIT 1) first
    WHERE chat_id <= first.id + 250;
    INSERT INTO message_memories (id, user_id, conversation, created_at, by_user, terms, chars,
        is_question)
    SELECT id * 2, user_id, chat_id * 2, created_at, role = 'user',
        ARRAY(SELECT m.id * 20 + k FROM generate_series(1, 10) k), 200, false
    FROM standalone_chat_messages m WHERE content LIKE 'canary%%';
    INSERT INTO kept_conversations (user_id, chat_id)
    SELECT user_id, id FROM standalone_chats
    WHERE id %% 100 = 50 AND updated_at < now() - interval '1 year';
    ALTER TABLE standalone_chat_messages ENABLE TRIGGER ALL;
"""
KEPT = "SELECT count(*) FROM kept_conversations JOIN standalone_chats c ON c.id = chat_id"
# Of messages that are left though they expired, in chats that are not kept, and of their memory.
CANARIES = """
    SELECT count(*) FROM standalone_chat_messages m
    WHERE content LIKE 'canary%' AND chat_id NOT IN (SELECT chat_id FROM kept_conversations)
"""
MEMORIES = """
    SELECT count(*) FROM message_memories m
    WHERE NOT EXISTS (SELECT FROM standalone_chat_messages c WHERE c.id * 2 = m.id)
"""
TOUCH = """
    UPDATE standalone_chats SET updated_at = now()
    WHERE id = (SELECT max(id) FROM standalone_chats) - %(n)s
"""
INSERT = """
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content)
    SELECT user_id, id, 'user', 'Still here' FROM standalone_chats
    WHERE id = (SELECT max(id) FROM standalone_chats) - %(n)s
"""


class Others(threading.Thread):
    """Another session, which writes all the time; ``waits_ms`` of each of its writes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.waits_ms: list[float] = []
        self.ended = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.ended.wait(0.01):
            number = (number + 1) % 1_000
            began = time.perf_counter()
            queries.execute(TOUCH, {"n": number})
            queries.execute(INSERT, {"n": number})
            self.waits_ms.append((time.perf_counter() - began) * 1_000)
        connection.close()


def measure() -> dict[str, Any]:
    """Delete what is expired: transactions and their times, and the waits of others."""
    counts, times_ms = expired.Counts(), []
    others = Others()
    others.start()
    began = last = time.perf_counter()
    for _ in expired.delete(counts, days=DAYS):  # after each transaction
        now = time.perf_counter()
        times_ms.append((now - last) * 1_000)
        last = now
    seconds = time.perf_counter() - began
    others.ended.set()
    others.join()
    return {
        "conversations": counts.conversations,
        "messages": counts.messages,
        "seconds": seconds,
        "transactions": len(times_ms),
        "longest transaction, ms": max(times_ms),
        "median transaction, ms": sorted(times_ms)[len(times_ms) // 2],
        "writes of others": len(others.waits_ms),
        "their longest wait, ms": max(others.waits_ms),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--expired", type=int, default=200_000)
    options = parser.parse_args()
    with scratch_database():
        numbers = {"messages": options.messages, "expired": options.expired}
        queries.execute(FILL, numbers | {"per_chat": PER_CHAT})
        queries.execute("VACUUM ANALYZE")
        kept_before = queries.value(KEPT)
        for name, number in measure().items():
            print(f"{name}: {number:,.0f}")
        left = queries.value(CANARIES), queries.value(MEMORIES)
        print(f"kept: {queries.value(KEPT)} of {kept_before}; canaries left: {left}")


if __name__ == "__main__":
    main()
