"""Answers derived from edited or deleted messages ("tainted" answers) are never recalled again.

Every answer stores the ids of what its prompt held (``reply_to``, ``context``).

1. Triggers record each edit and deletion in ``forgotten_messages``, whichever program makes it.
2. The user's next recall follows the stored ids forward, once, and marks every answer that was
   given the message, or was given a marked answer (``propagate_taint``).
3. Every recall leaves out the answers that are marked, or were given a message that is missing, was
   edited later, or is marked: the SQL function ``tainted_by_1``. On schemas before chat
   0010_recall_messages ``tainted_on_older_schema`` applies the same rule;
   chat/memory/older_schema.py calls it.

The ids are followed forward, once per edit or deletion. Following them backward at each recall
would read a user's whole history: 1.7 s at 20,000 messages. docs/decisions/0013-forgetting.md
"""

import logging
import threading
from collections import defaultdict
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from django.contrib.auth import get_user_model
from django.db import Error, OperationalError, transaction
from django.db.models import Exists, OuterRef
from psycopg import sql
from psycopg.errors import QueryCanceled

from retrieval import db, steps
from retrieval.db_errors import error_name
from retrieval.embeddings import usage
from retrieval.message_tables import MessageTable, select_message
from retrieval.models import ForgottenMessage, UserEmbeddingUsage, message_tables
from retrieval.queries import value
from retrieval.replica import reading
from retrieval.runtime import Expiring
from retrieval.schema.locks import PROPAGATE_LOCK
from retrieval.sql_files import read_statements

logger = logging.getLogger(__name__)
SQL = read_statements(Path(__file__).with_name("forgetting.sql"))
# True unless row ``m`` is a tainted answer. Most users have no row in forgotten_messages, so the
# function, which costs more, is called for few. Locks: none.
NOT_TAINTED = sql.SQL("""(m.role <> 'assistant'
    OR NOT EXISTS (SELECT FROM forgotten_messages f WHERE f.user_id = m.user_id)
    OR NOT EXISTS (SELECT FROM tainted_by_1({message_ref}, m.reply_to, m.context,
        coalesce(m.edited_at, m.created_at))))""")
# False on schemas before chat 0010_recall_messages, and for a role that grant_roles has not yet
# given these rights.
CAN_CHECK_TAINT = """
    SELECT coalesce(has_function_privilege(
            to_regprocedure('tainted_by_1(bigint, bigint, jsonb, timestamptz)'), 'EXECUTE'), false)
        AND coalesce(has_table_privilege(to_regclass('forgotten_messages'), 'SELECT'), false)
"""
COLUMNS = sql.SQL("{kind_bit} AS kind_bit, role, reply_to, context, created_at, edited_at")
LOOK_AGAIN_S = 20.0
_can_check_taint: Expiring[bool] = Expiring()
MAX_PROPAGATING = 2  # steps of a process, each with a connection
_lock = threading.Lock()  # protects the following
_propagating: set[int] = set()  # users whose taint a step of its own propagates


class Answer(NamedTuple):
    """When the text of an answer was written, and the refs of the messages that it was given."""

    written_at: datetime
    sources: list[int]


def tainted_on_older_schema(user_id: int, refs: list[int]) -> set[int]:
    """Which of the user's answers must not be recalled: the rule of ``tainted_by_1``.

    One statement; six after an edit or a deletion. Raises NoMemory.
    """
    if not refs:
        return set()
    tainted_refs, has_unpropagated = _query_tainted(user_id, refs)
    if has_unpropagated:
        propagate_taint(user_id)
        tainted_refs, _ = _query_tainted(user_id, refs)
    return tainted_refs


def _query_tainted(user_id: int, refs: list[int]) -> tuple[set[int], bool]:
    rows = db.execute(_tainted_statement(), {"user": user_id, "refs": refs})
    return set(rows[0][0]), bool(rows[0][1])


def not_tainted(table: MessageTable) -> sql.Composable:
    """SQL: whether row ``m`` of the table is not tainted, as far as this role can tell.

    Taint that the user's next recall will propagate is not seen. At most one query in LOOK_AGAIN_S.
    """
    can_check_taint = _can_check_taint.get()
    if can_check_taint is None:
        can_check_taint = _can_check_taint.set(bool(value(CAN_CHECK_TAINT)), seconds=LOOK_AGAIN_S)
    return NOT_TAINTED.format(**table.names) if can_check_taint else sql.SQL("true")


def propagate_taint(user_id: int) -> None:
    """Mark the answers that the user's edits and deletions have reached.

    Four statements. If one is cancelled, since the recall takes too long, a step of its own does
    it again. Raises PrimaryNeededError on a replica.
    """
    reading.require_primary()
    try:
        _propagate(user_id)
    except OperationalError as error:
        if isinstance(error.__cause__, QueryCanceled):
            _propagate_later(user_id)
        raise


def _propagate_later(user_id: int) -> None:
    """Without a limit of time, so only some at once. What is left out, the next recall starts."""
    with _lock:
        if user_id in _propagating or len(_propagating) == MAX_PROPAGATING:
            return
        _propagating.add(user_id)
    steps.submit(_propagate_without_limit, user_id)


def _propagate_without_limit(user_id: int) -> None:
    try:
        with transaction.atomic():
            db.execute("SET LOCAL statement_timeout = 0", {})
            _propagate(user_id)
    except Error as error:
        logger.warning("Tainted answers are not marked yet: %s", error_name(error))
    finally:
        with _lock:
            _propagating.discard(user_id)


def _propagate(user_id: int) -> None:
    """Read, walk, and only then lock: an edit of the same messages waits for the last part.

    The walk is done in Python: a recursive query reads every edge again at each step, 22 s for
    10,000 answers that were each given the ones before.
    """
    rows = db.execute(_forgotten_statement(), {"user": user_id})
    forgotten = {ref: at for ref, at, _, version in rows if version}
    versions = {ref: version for ref, _, _, version in rows if version}
    answers = {ref: Answer(at, sources) for ref, at, sources, version in rows if not version}
    marks = _reached(forgotten, answers)
    params = {
        "user": user_id,
        "lock": PROPAGATE_LOCK,
        "forgotten": list(versions),
        "versions": list(versions.values()),
        "refs": list(marks),
        "written_at": list(marks.values()),
    }
    with transaction.atomic():
        for name in ("one_at_a_time", "delete_propagated", "mark"):
            db.execute(SQL[name], params)


def _reached(
    forgotten: dict[int, datetime | None], answers: dict[int, Answer]
) -> dict[int, datetime]:
    """The answers reached: ref → when its text was written.

    An answer is reached if it was given a forgotten message or a reached answer. ``forgotten``:
    ref → when the message was edited; None after a deletion, which reaches answers of any time.
    """
    answers_by_source = defaultdict(list)
    for ref, answer in answers.items():
        for source in answer.sources:
            answers_by_source[source].append(ref)
    waiting = [
        ref
        for source, edited_at in forgotten.items()
        for ref in answers_by_source[source]
        if edited_at is None or answers[ref].written_at < edited_at
    ]
    reached: dict[int, datetime] = {}
    while waiting:
        ref = waiting.pop()
        if ref not in reached:
            reached[ref] = answers[ref].written_at
            waiting += answers_by_source[ref]
    return reached


def was_edited_since(edited_at: datetime | None, written_at: datetime) -> bool:
    """Whether a source was edited after the answer was written, as in SQL ``has_stale_source``."""
    return edited_at is not None and edited_at > written_at


def has_stale_source(table: MessageTable) -> sql.Composed:
    """SQL: whether the row ``m`` of the table was given a message that is missing or edited later.

    For fill_words: sources may have been edited or deleted while there was no trigger.
    """
    return _has_stale_source(sql.Literal(table.kind_bit), source_is_marked=sql.SQL("false"))


def _has_stale_source(
    kind_bit: sql.Composable, *, source_is_marked: sql.Composable
) -> sql.Composed:
    return SQL["has_stale_source"].format(
        sources=SQL["sources"].format(kind_bit=kind_bit),
        source=_message("source"),
        source_is_marked=source_is_marked,
    )


@db.composed_once
def _tainted_statement() -> sql.Composed:
    return SQL["tainted_on_older_schema"].format(
        message=_message("ref"),
        is_marked=_is_marked("ref", "m"),
        has_stale_source=_has_stale_source(
            sql.SQL("m.kind_bit"), source_is_marked=_is_marked("source", "s")
        ),
    )


@db.composed_once
def _forgotten_statement() -> sql.Composed:
    sources = SQL["sources"].format(kind_bit=sql.SQL("m.kind_bit"))
    return SQL["forgotten_and_answers"].format(message=_message("answer", "ref"), sources=sources)


def _message(*ref: str) -> sql.Composed:
    return select_message(message_tables(), COLUMNS, ref=sql.Identifier(*ref))


def _is_marked(ref: str, message: str) -> sql.Composed:
    return SQL["is_marked"].format(ref=sql.Identifier(ref), message=sql.Identifier(message))


def erase(user_id: int) -> int:
    """Delete what is recorded of the user; how many rows. One statement. Raises NoMemory."""
    with db.require_memory():
        return ForgottenMessage.objects.filter(user_id=user_id).delete()[0]


def purge_deleted_users() -> None:
    """Delete what is recorded of users that no longer exist. Two statements."""
    owner = get_user_model()._default_manager.filter(pk=OuterRef("user_id"))
    with suppress(db.NoMemory), db.require_memory():
        ForgottenMessage.objects.filter(~Exists(owner)).delete()
        if usage.has_table():
            UserEmbeddingUsage.objects.filter(~Exists(owner)).delete()
