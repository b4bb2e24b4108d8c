"""Measures the admin's pages with many messages.

    .venv/bin/python -m benchmarks.admin [--rows 1000000] [--rounds 5]

Uses a scratch database on the configured server, and asks for each page in this process as a
browser does, sessions and templates included. A third of the messages are one user's, one in a
thousand answers failed, one in a hundred messages is pending, one in a thousand was set aside, and
one in twenty has a vector of an earlier model. Lists read no vectors, so few messages have one.
"""

import argparse
import os
import statistics
import time
from datetime import timedelta
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import override_settings
from django.utils import timezone

from benchmarks.processes import cpu_ms
from benchmarks.stage import scratch_database

USERS = 2_000
SESSIONS = """
    SELECT pid FROM pg_stat_activity WHERE datname = current_database()
    AND backend_type = 'client backend'
"""
FILL = """
    ALTER TABLE standalone_chat_messages DISABLE TRIGGER ALL;
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email,
        is_staff, is_active, date_joined)
    SELECT 'user' || n, '!', false, '', '', '', false, true, now()
    FROM generate_series(1, %(users)s) n;
    INSERT INTO standalone_chats (user_id, title, memory)
    SELECT id, 'Chat of ' || username, id %% 100 <> 0 FROM auth_user WHERE username LIKE 'user%%';
    INSERT INTO embedding_models (name, current) VALUES ('an earlier model', false),
        ('text-embedding-3-small', true);
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, status, content, created_at)
    SELECT c.user_id, c.id, CASE n %% 2 WHEN 0 THEN 'user' ELSE 'assistant' END,
        CASE WHEN n %% 1000 = 1 THEN 'failed' WHEN n %% 1000 = 3 THEN 'interrupted'
            ELSE 'complete' END,
        CASE WHEN n %% 1000 = 1 THEN ''
            ELSE 'Number ' || n || ' said of bread and dogs ' || repeat(md5(n::text), 5) END,
        now() - (%(rows)s - n) * interval '1 minute'
    FROM generate_series(1, %(rows)s) n JOIN standalone_chats c ON c.id = (
        SELECT min(id) FROM standalone_chats) + CASE WHEN n %% 3 = 0 THEN 0
            ELSE n %% %(users)s END;
    INSERT INTO message_memories (id, user_id, conversation, created_at, by_user, terms, chars,
        is_question, bits, model, embedding_error)
    SELECT m.id * 2, user_id, chat_id * 2, created_at, role = 'user',
        ARRAY(SELECT m.id * 20 + k FROM generate_series(1, 20) k), 200, false,
        CASE WHEN m.id %% 100 > 1 THEN repeat('0', 1536)::bit(1536) END,
        CASE WHEN m.id %% 100 > 1 THEN (
            SELECT id FROM embedding_models WHERE current = (m.id %% 20 <> 2)) END,
        CASE WHEN m.id %% 1000 = 500 THEN 'refused: 400' END
    FROM standalone_chat_messages m WHERE content <> '';
    ALTER TABLE standalone_chat_messages ENABLE TRIGGER ALL;
    UPDATE standalone_chat_messages SET embedding = array_fill(0.1, ARRAY[1536])::vector
    WHERE id %% 10000 = 2;
    INSERT INTO embedding_usage
    SELECT current_date - n, 'text-embedding-3-small', 'ok', 1, 100, 10000, 0.0002 * n
    FROM generate_series(0, 365) n;
    INSERT INTO recall_measurements
    SELECT now() - n * interval '1 day', 200, 20, 0.99 + random() * 0.01, 4, 9 + random()
    FROM generate_series(0, 365) n;
"""
LIST = "/admin/chat/standalonechatmessage/"
FILTERS = {
    "state": ("embedded", "pending", "failed", "off"),
    "status": ("complete", "failed", "interrupted", "streaming"),
    "role": ("user", "assistant"),
    "model": ("1", "2"),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with scratch_database(), override_settings(ALLOWED_HOSTS=["testserver"], DEBUG=False):
        with connection.cursor() as cursor:
            cursor.execute(FILL, {"rows": options.rows, "users": USERS})
            cursor.execute("VACUUM (ANALYZE)")
        client = Client()
        client.force_login(
            User.objects.create(username="operator", is_staff=True, is_superuser=True)
        )
        print(f"| {options.rows:,} messages; milliseconds | fastest | median | processor time |")
        print("|---|---|---|---|")
        for name, url in pages(options.rows).items():
            report(client, name, url, rounds=options.rounds)


def pages(rows: int) -> dict[str, str]:
    """The address of each page, by what it is called in the table."""
    filters = {
        f"{name}: {value}": f"{LIST}?{name}={value}"
        for name, values in FILTERS.items()
        for value in values
    }
    searches = {
        "search: the user of a third": f"{LIST}?q=user1",
        "search: a hundred users": f"{LIST}?q=user",
        "search: a name that is not there": f"{LIST}?q=nobody",
        "search: an id": f"{LIST}?q={rows // 2}",
    }
    combinations = {
        "pending answers that failed": f"{LIST}?state=pending&status=failed&role=assistant",
        "the user of a third, pending": f"{LIST}?q=user1&state=pending",
        "a hundred users, embedded, by role": f"{LIST}?q=user&state=embedded&role=user",
        "last year, off": f"{LIST}?until={timezone.localdate() - timedelta(days=300)}&state=off",
        "all filters": f"{LIST}?state=embedded&status=complete&role=user&model=2&since=2020-01-01",
    }
    return {
        "messages": LIST,
        "messages, page 100": f"{LIST}?p=100",
        "messages from the middle": f"{LIST}?before={rows // 2}",
        **filters,
        "today": f"{LIST}?since={timezone.localdate()}",
        "since 2020": f"{LIST}?since=2020-01-01",
        **searches,
        **combinations,
        "a message with a vector": f"{LIST}{first_id() + 10_001}/change/",
        "a conversation of a third": f"/admin/chat/standalonechat/{first_chat()}/change/",
        "conversations": "/admin/chat/standalonechat/",
        "conversations, search": "/admin/chat/standalonechat/?q=user1",
        "users": "/admin/auth/user/",
        "users, search": "/admin/auth/user/?q=user1",
        "embedding usage by user": "/admin/retrieval/userembeddingusage/",
        "memory overview": "/admin/memory/",
    }


def first_id() -> int:
    return _value("SELECT min(id) FROM standalone_chat_messages")


def first_chat() -> int:
    return _value("SELECT min(id) FROM standalone_chats")


def _value(statement: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return int(cursor.fetchone()[0])


def report(client: Client, name: str, url: str, *, rounds: int) -> None:
    """Print a line. The first request is not counted: it fills caches."""
    walls, processors = zip(*[measured(client, url) for _ in range(rounds + 1)][1:], strict=True)
    figures = min(walls), statistics.median(walls), statistics.median(processors)
    print(f"| {name} | {' | '.join(f'{figure:.0f}' for figure in figures)} |", flush=True)


def measured(client: Client, url: str) -> tuple[float, float]:
    """How long one request takes, and the processor time of both processes; milliseconds.

    Raises RuntimeError for any other answer than a page.
    """
    pids = [os.getpid(), *database_processes()]
    before, started = cpu_ms(pids), time.perf_counter()
    response: Any = client.get(url)
    elapsed = time.perf_counter() - started
    if response.status_code != 200:
        raise RuntimeError(f"{url}: {response.status_code}")
    return elapsed * 1000, cpu_ms(pids) - before


def database_processes() -> list[int]:
    """Those of this process's sessions."""
    with connection.cursor() as cursor:
        cursor.execute(SESSIONS)
        return [pid for (pid,) in cursor.fetchall()]


if __name__ == "__main__":
    main()
