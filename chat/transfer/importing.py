"""A file of lines into the database: copied into a temporary table, then inserted by sets."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.db import connection, transaction

from chat.transfer.lines import KINDS, MAX_LINE_BYTES, BadLineError, parse
from retrieval.schema import bulk

PROGRESS_EVERY = 10_000  # lines; at 100,000 a second ten reports a second
REASONS_KEPT = 5  # of bad lines that are skipped: enough to see what is wrong with a file
USERS_AT_ONCE = 1_000  # made by one statement
IMPORT_LOCK = 0x7665727366  # beside retrieval.schema.locks.MIGRATE_LOCK
# The file may come slowly through a pipe, and a million rows are one statement: limits meant for requests do not fit.
NO_LIMITS = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
STAGE = """
    CREATE TEMPORARY TABLE import_lines (line bigint, kind text, username text, conversation text, role text,
        content text, created_at timestamptz) ON COMMIT DROP
"""
COPY = "COPY import_lines FROM STDIN"
USERS = """
    ANALYZE import_lines;
    CREATE TEMPORARY TABLE import_users ON COMMIT DROP AS
        SELECT l.username, min(l.line) AS line, count(*) AS lines, u.id
        FROM import_lines l LEFT JOIN {users} u ON u.username = l.username GROUP BY l.username, u.id
"""
UNKNOWN = """
    SELECT line, username, (sum(lines) OVER ())::bigint FROM import_users WHERE id IS NULL ORDER BY line LIMIT %s
"""
UNKNOWN_NAMES = """
    SELECT username FROM import_users WHERE id IS NULL AND username > %s ORDER BY username LIMIT %s
"""
FIND_USERS = "UPDATE import_users i SET id = u.id FROM {users} u WHERE u.username = i.username AND i.id IS NULL"
CONVERSATIONS = """
    CREATE TEMPORARY TABLE import_conversations ON COMMIT DROP AS
        SELECT l.kind, u.id AS user_id, l.username, l.conversation AS name, min(l.created_at) AS first,
            max(l.created_at) AS last, count(*) AS lines, NULL::bigint AS id
        FROM import_lines l JOIN import_users u ON u.username = l.username WHERE u.id IS NOT NULL
        GROUP BY l.kind, u.id, l.username, l.conversation
"""
COUNTS = "SELECT count(*), count(DISTINCT user_id), coalesce(sum(lines), 0)::bigint FROM import_conversations"
ADD_CONVERSATIONS = """
    INSERT INTO {parents} (user_id, source, created_at, updated_at, {named})
    SELECT user_id, name, first, last, {names} FROM import_conversations WHERE kind = '{kind}' ORDER BY first, name
    ON CONFLICT (user_id, source) DO NOTHING
"""
# One that is deleted in between keeps no id: its messages are then refused by NOT NULL, and nothing is kept.
FIND_CONVERSATIONS = """
    UPDATE import_conversations c SET id = p.id FROM {parents} p
    WHERE c.kind = '{kind}' AND p.user_id = c.user_id AND p.source = c.name
"""
# Equal messages in one row of places, those of the database (line 0) first: with ``there`` of them there, the lines
# at the places up to twice ``there`` are there already. No join on what was said: a thousand equal lines stay cheap.
ADD_MESSAGES = """
    WITH added AS (
        INSERT INTO {table} (user_id, {conversation}, role, content, created_at)
        SELECT user_id, conversation_id, role, content, created_at FROM (
            SELECT *, row_number() OVER same AS place, count(*) FILTER (WHERE line = 0) OVER same AS there FROM (
                SELECT l.line, c.user_id, c.id AS conversation_id, l.role, l.content, l.created_at
                FROM import_lines l
                JOIN import_conversations c ON (c.kind, c.username, c.name) = (l.kind, l.username, l.conversation)
                WHERE l.kind = '{kind}'
                UNION ALL
                SELECT 0, c.user_id, c.id, m.role, m.content, m.created_at
                FROM import_conversations c JOIN {table} m ON m.{conversation} = c.id
                WHERE c.kind = '{kind}' AND m.created_at BETWEEN c.first AND c.last
            ) both_sides
            WINDOW same AS (PARTITION BY conversation_id, created_at, role, content COLLATE "C" ORDER BY line)
        ) placed
        WHERE line > 0 AND place > 2 * there
        ORDER BY created_at, line
        RETURNING id
    )
    SELECT count(*), min(id), max(id) FROM added
"""
TOUCH = """
    UPDATE {parents} p SET created_at = least(p.created_at, c.first), updated_at = greatest(p.updated_at, c.last)
    FROM import_conversations c
    WHERE c.kind = '{kind}' AND p.id = c.id AND (p.created_at > c.first OR p.updated_at < c.last)
"""
NAMED = {
    "chat": {"named": "title", "names": "left(name, 200)"},
    "passage": {"named": "reference, text", "names": "left(name, 200), left(name, 200)"},
}


class ImportRefusedError(Exception):
    """Why nothing of the file was kept, in one line."""


@dataclass
class Imported:
    """What came of a file: messages added, and already there; users and conversations are those that it names.

    ``skipped`` lines were bad; ``reasons`` tells of the first five, such as ``line 17: content is blank``.
    """

    messages: int = 0
    skipped: int = 0
    users: int = 0
    conversations: int = 0
    already: int = 0
    reasons: list[str] = field(default_factory=list)


def import_lines(
    lines: Iterable[bytes], *, create_users: bool, skip_bad: bool, progress: Callable[[int], None]
) -> Imported:
    """Add the messages of the lines that are not there yet, all or nothing; ``progress`` hears of lines read.

    In one transaction of its own. Until the whole file is read it holds no lock on a table that others use, then
    ROW EXCLUSIVE on both message tables and both conversation tables, as any insert: reading and writing go on. The
    rows of users and conversations that it adds to are locked against deletion until the end.
    ImportRefusedError: a bad line without ``skip_bad``, an unknown user without ``create_users`` counting as one, or
    another import is running. django.db.Error: the database's refusal. In each case nothing is kept.
    """
    done = Imported()
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        _begin(cursor)
        _copy(cursor, _rows(lines, done, skip_bad=skip_bad, progress=progress))
        _find_users(cursor, done, create_users=create_users, skip_bad=skip_bad)
        _add_conversations(cursor, done)
        _add_messages(cursor, done)
    return done


def _begin(cursor: Any) -> None:
    cursor.execute(f"SELECT pg_catalog.pg_try_advisory_xact_lock({IMPORT_LOCK})")
    if not cursor.fetchone()[0]:
        # Two at once would each count what is there before the other has committed.
        raise ImportRefusedError("another import is running; run this one after it")
    cursor.execute(NO_LIMITS)
    cursor.execute(STAGE)


def _copy(cursor: Any, rows: Iterator[tuple[Any, ...]]) -> None:
    # Django translates errors of execute(), not of copy().
    with connection.wrap_database_errors, cursor.copy(COPY) as copy:
        for row in rows:
            copy.write_row(row)


def _rows(
    lines: Iterable[bytes], done: Imported, *, skip_bad: bool, progress: Callable[[int], None]
) -> Iterator[tuple[Any, ...]]:
    for number, raw in enumerate(lines, 1):
        try:
            if raw.strip() or len(raw) > MAX_LINE_BYTES:
                yield number, *parse(raw)
        except BadLineError as error:
            _skip(done, f"line {number}: {error}", skip_bad=skip_bad)
            done.skipped += 1
        if number % PROGRESS_EVERY == 0:
            progress(number)


def _skip(done: Imported, reason: str, *, skip_bad: bool) -> None:
    if not skip_bad:
        raise ImportRefusedError(reason)
    if len(done.reasons) < REASONS_KEPT:
        done.reasons.append(reason)


def _find_users(cursor: Any, done: Imported, *, create_users: bool, skip_bad: bool) -> None:
    users = get_user_model()._meta.db_table
    cursor.execute(USERS.format(users=users))
    if create_users:
        _create_users(cursor)
        cursor.execute(FIND_USERS.format(users=users))
    cursor.execute(UNKNOWN, [REASONS_KEPT])
    lines = 0
    for line, name, lines in cursor.fetchall():  # noqa: B007 - the same in each row
        _skip(done, f"line {line}: no user is called {name!r}", skip_bad=skip_bad)
    done.skipped += lines


def _create_users(cursor: Any) -> None:
    """Page by page; one that somebody else makes meanwhile is theirs."""
    model = get_user_model()
    after = ""
    while names := _fetch_names(cursor, after):
        made = [model(username=name, password=make_password(None)) for name in names]
        model._default_manager.bulk_create(made, ignore_conflicts=True)
        after = names[-1]


def _fetch_names(cursor: Any, after: str) -> list[str]:
    cursor.execute(UNKNOWN_NAMES, [after, USERS_AT_ONCE])
    return [row[0] for row in cursor.fetchall()]


def _add_conversations(cursor: Any, done: Imported) -> None:
    cursor.execute(CONVERSATIONS)
    _for_each_kind(cursor, ADD_CONVERSATIONS)
    _for_each_kind(cursor, FIND_CONVERSATIONS)
    cursor.execute("ANALYZE import_conversations")
    cursor.execute(COUNTS)
    done.conversations, done.users, done.already = cursor.fetchone()


def _add_messages(cursor: Any, done: Imported) -> None:
    bulk.defer_memory_insert()
    added = {kind: _add_messages_of(cursor, kind) for kind in KINDS}
    done.messages = sum(count for count, _, _ in added.values())
    done.already -= done.messages
    # The foreign keys are looked at now, and not after the conversations are locked: a turn in one waits for it.
    cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for kind, (count, first, last) in added.items():
        if count:
            bulk.insert_memories(KINDS[kind].memory_table, first, last)
    _for_each_kind(cursor, TOUCH)


def _add_messages_of(cursor: Any, kind: str) -> tuple[int, int, int]:
    """How many were added, and the first and the last of their ids; somebody else's may lie between."""
    cursor.execute(_of_kind(ADD_MESSAGES, kind))
    count, first, last = cursor.fetchone()
    return count, first, last


def _for_each_kind(cursor: Any, statement: str) -> None:
    for kind in KINDS:
        cursor.execute(_of_kind(statement, kind))


def _of_kind(statement: str, kind: str) -> str:
    source = KINDS[kind].memory_table
    parents = KINDS[kind]._meta.get_field("conversation").related_model._meta.db_table
    names = {
        "table": source.table,
        "conversation": source.conversation,
        "parents": parents,
    } | NAMED[kind]
    return statement.format(kind=kind, **names)
