"""Imports messages: copied into a temporary table, then inserted by sets (importing.sql)."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.db import connection, transaction
from psycopg import sql

from chat.models import KINDS
from chat.transfer import imported_items
from chat.transfer.imported_items import Record
from chat.transfer.json_lines import MAX_FILE_LINE_BYTES, BadLineError, parse
from chat.transfer.refusals import ImportBusyError, ImportRefusedError
from retrieval import queries
from retrieval.replica.user_writes import recorded
from retrieval.schema import bulk_insert_memories
from retrieval.schema.locks import IMPORT_LOCK
from retrieval.sql_files import read_statements

PROGRESS_EVERY = 10_000  # lines; at 100,000 a second ten reports a second
MAX_REASONS = 5  # of bad lines that are skipped: enough to see what is wrong with a file
USERS_PAGE = 1_000  # created by one statement

SQL = read_statements(Path(__file__).with_name("importing.sql"))
# Columns of a conversation that get its name, if the file says nothing else.
NAME_COLUMNS = {
    "chat": (sql.SQL("title"), sql.SQL("coalesce(title, left(name, 200))")),
    "passage": (
        sql.SQL("reference, text"),
        sql.SQL("coalesce(title, left(name, 200)), coalesce(body, title, left(name, 200))"),
    ),
}


@dataclass
class Imported:
    """The result: messages added, and those that were there already; the users and conversations
    that the file names.

    ``skipped`` lines were bad; ``reasons`` has the first five: ``line 17: content is blank``.
    Of a product's export ``left_out`` says how many, by reason.
    """

    messages: int = 0
    skipped: int = 0
    users: int = 0
    conversations: int = 0
    already: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    reasons: list[str] = field(default_factory=list)


def import_lines(
    lines: Iterable[bytes], *, create_users: bool, skip_bad: bool, progress: Callable[[int], None]
) -> Imported:
    """Add the messages of the lines that are not stored yet, all or nothing.

    ``progress`` is called with the number of lines read. One transaction of its own: while it
    reads the file it locks no table that others use, then it takes ROW EXCLUSIVE on both message
    tables and both conversation tables, as any insert: reading and writing go on. The rows of
    users and conversations that it adds to are locked against deletion until the end.

    Raises ImportRefusedError: a bad line without ``skip_bad`` (an unknown user is one without
    ``create_users``). Raises ImportBusyError: another import is running. Raises django.db.Error:
    the database refused. After each of them nothing was imported.
    """
    result = Imported()
    rows = rows_of_lines(lines, result, skip_bad=skip_bad, progress=progress)
    return import_rows(rows, result, create_users=create_users, skip_bad=skip_bad)


def import_rows(
    rows: Iterator[tuple[Any, ...]],
    result: Imported,
    *,
    create_users: bool = False,
    skip_bad: bool = False,
    record: Record | None = None,
) -> Imported:
    """As ``import_lines``, of rows for ``import_lines`` in importing.sql: two keys may be left out.

    ``record``: note what came with this import, and leave out what an earlier one added.
    """
    with (
        transaction.atomic(durable=True),
        recorded() as users,
        connection.cursor() as cursor,
    ):
        copy_rows(cursor, rows)
        _find_users(cursor, result, create_users=create_users, skip_bad=skip_bad)
        if record:
            record.begin(cursor, result)
        _add_conversations(cursor, result)
        _add_messages(cursor, result, record)
        if record:
            record.finish(cursor, result)
        users.update(*queries.rows(SQL["known_users"]))
    return result


def _begin(cursor: Any) -> None:
    """Create the temporary table. Raises ImportBusyError."""
    cursor.execute("SELECT pg_catalog.pg_try_advisory_xact_lock(%s)", [IMPORT_LOCK])
    if not cursor.fetchone()[0]:
        # Two at once would each count the stored messages before the other has committed.
        raise ImportBusyError("another import is running; run this one after it")
    cursor.execute(SQL["remove_time_limits"])
    cursor.execute(SQL["create_lines"])


def copy_rows(cursor: Any, rows: Iterator[tuple[Any, ...]]) -> None:
    """Read all rows into the temporary table. Raises ImportBusyError, and what reading raises."""
    _begin(cursor)
    # Django translates errors of execute(), not of copy().
    with connection.wrap_database_errors, cursor.copy(SQL["copy_lines"]) as copy:
        for row in rows:
            copy.write_row(row)


def rows_of_lines(
    lines: Iterable[bytes],
    result: Imported,
    *,
    progress: Callable[[int], None],
    skip_bad: bool = False,
    owner: str | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Rows for ``import_rows``. ``owner``: the only user that lines may name; they need not."""
    for number, raw in enumerate(lines, 1):
        try:
            if raw.strip() or len(raw) > MAX_FILE_LINE_BYTES:
                *message, details = parse(raw, owner=owner)
                yield number, *message, *details, None, None
        except BadLineError as error:
            _skip(result, f"line {number}: {error}", skip_bad=skip_bad)
            result.skipped += 1
        if number % PROGRESS_EVERY == 0:
            progress(number)


def _skip(result: Imported, reason: str, *, skip_bad: bool) -> None:
    if not skip_bad:
        raise ImportRefusedError(reason)
    if len(result.reasons) < MAX_REASONS:
        result.reasons.append(reason)


def find_users(cursor: Any) -> None:
    """Look up the users that the rows name."""
    users = sql.Identifier(get_user_model()._meta.db_table)
    cursor.execute(SQL["create_users"].format(users=users))
    cursor.execute(SQL["find_unnormalized_users"].format(users=users))


def _find_users(cursor: Any, result: Imported, *, create_users: bool, skip_bad: bool) -> None:
    find_users(cursor)
    if create_users:
        _create_users(cursor)
        users = sql.Identifier(get_user_model()._meta.db_table)
        cursor.execute(SQL["find_users"].format(users=users))
    cursor.execute(SQL["unknown_users"], {"limit": MAX_REASONS})
    skipped = 0
    for line, name, skipped in cursor.fetchall():  # noqa: B007 - the same total in each row
        _skip(result, f"line {line}: no user is called {name!r}", skip_bad=skip_bad)
    result.skipped += skipped


def _create_users(cursor: Any) -> None:
    """Page by page; a user that another transaction creates meanwhile is used as it is."""
    model = get_user_model()
    after = ""
    while names := _unknown_names(cursor, after):
        users = [model(username=name, password=make_password(None)) for name in names]
        model._default_manager.bulk_create(users, ignore_conflicts=True)
        after = names[-1]


def _unknown_names(cursor: Any, after: str) -> list[str]:
    cursor.execute(SQL["unknown_names"], {"after": after, "limit": USERS_PAGE})
    return [row[0] for row in cursor.fetchall()]


def _add_conversations(cursor: Any, result: Imported) -> None:
    cursor.execute(SQL["create_conversations"])
    cursor.execute(SQL["analyze_conversations"])
    _execute_for_each_kind(cursor, "find_exported_conversations")
    _execute_for_each_kind(cursor, "insert_conversations")
    _execute_for_each_kind(cursor, "find_conversations")
    cursor.execute(SQL["count_conversations"])
    result.conversations, result.users, result.already = cursor.fetchone()


def _add_messages(cursor: Any, result: Imported, record: Record | None) -> None:
    bulk_insert_memories.defer_memory_insert()
    added = {kind: _insert_messages(cursor, kind, record) for kind in KINDS}
    result.messages = sum(count for count, _, _ in added.values())
    result.already -= result.messages
    cursor.execute(SQL["check_foreign_keys"])
    for kind, (count, first, last) in added.items():
        if count:
            cursor.execute(_for_kind("mark_import", kind), {"first": first})
            bulk_insert_memories.insert_memories(KINDS[kind].memory_table, first, last)
    _execute_for_each_kind(cursor, "touch_conversations")


def _insert_messages(cursor: Any, kind: str, record: Record | None) -> tuple[int, int, int]:
    """How many were added, and their first and last id; ids of others may lie between."""
    statement = _for_kind("insert_messages", kind, is_recorded=record is not None)
    cursor.execute(statement, {"import": record.import_id if record else None})
    count, first, last = cursor.fetchone()
    return count, first, last


def _execute_for_each_kind(cursor: Any, name: str) -> None:
    for kind in KINDS:
        cursor.execute(_for_kind(name, kind))


@cache
def _for_kind(name: str, kind: str, *, is_recorded: bool = False) -> sql.Composed:
    name_columns, names = NAME_COLUMNS[kind]
    table = KINDS[kind].memory_table
    return SQL[name].format(
        record=imported_items.record_messages(table) if is_recorded else sql.SQL(""),
        kind=sql.Literal(kind),
        name_columns=name_columns,
        names=names,
        table_name=sql.Literal(table.table),
        **table.names,
    )
