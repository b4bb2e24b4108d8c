"""What came with which import: so that it can be removed, and is not added twice.

A product's export names each message. A later export of the same account adds only messages that
no import has added before: what was changed or deleted since stays so.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef
from psycopg import sql

from chat.models import KINDS, StandaloneChat
from chat.models.imports import ImportStatus, MemoryImport, has_imports
from chat.transfer.refusals import ImportRefusedError
from retrieval.message_tables import MessageTable
from retrieval.sql_files import read_statements

if TYPE_CHECKING:
    from chat.transfer.importing import Imported

SQL = read_statements(Path(__file__).with_name("imported_items.sql"))


@dataclass
class Record:
    """Notes what an import adds. ``import_id``: its row; 0: a row is added with the messages."""

    user_id: int
    format: str
    import_id: int = 0

    def begin(self, cursor: Any, result: "Imported") -> None:
        """Leave out what earlier imports added. For ``import_rows``."""
        if not self.import_id:
            new = MemoryImport(user_id=self.user_id, format=self.format, status=ImportStatus.DONE)
            new.save(force_insert=True)
            self.import_id = new.pk
        leave_out_known(cursor, result)

    def finish(self, cursor: Any, result: "Imported") -> None:
        """Note the conversations and the numbers. Raises ImportRefusedError: it was ended."""
        for kind in KINDS:
            cursor.execute(_for_kind("record_conversations", kind), {"import": self.import_id})
        if result.already:
            result.left_out["already"] += result.already
        running = MemoryImport.objects.filter(pk=self.import_id).exclude(status=ImportStatus.FAILED)
        numbers = {"messages": result.messages, "conversations": result.conversations}
        left_out = dict(+result.left_out)
        if not running.update(status=ImportStatus.DONE, left_out=left_out, **numbers):
            # Another process took it for dead, or the user has erased everything.
            raise ImportRefusedError("the import was ended meanwhile")


def leave_out_known(cursor: Any, result: "Imported") -> None:
    """Delete the lines of messages that came before, and of conversations deleted since."""
    for name in ("leave_out_repeated", "leave_out_known"):
        cursor.execute(SQL[name])
        if cursor.rowcount:
            result.left_out["already"] += cursor.rowcount
    cursor.execute(_for_kind("leave_out_deleted", StandaloneChat.kind))
    if cursor.rowcount:
        result.left_out["deleted"] += cursor.rowcount


def record_messages(table: MessageTable) -> sql.Composed:
    """The part of insert_messages that notes what it adds."""
    return SQL["record_messages"].format(**table.names)


@cache
def _for_kind(name: str, kind: str) -> sql.Composed:
    return SQL[name].format(kind=sql.Literal(kind), **KINDS[kind].memory_table.names)


def delete_messages(cursor: Any, import_id: int, kind: str) -> set[int]:
    """Delete what the import added; the ids of the conversations. One statement."""
    cursor.execute(_for_kind("delete_messages", kind), {"import": import_id})
    return {pk for (pk,) in cursor.fetchall()}


def purge_deleted_users() -> None:
    """Delete the imports of users that no longer exist. At most two statements."""
    if has_imports():
        owner = User.objects.filter(pk=OuterRef("user_id"))
        MemoryImport.objects.filter(~Exists(owner)).delete()


def empty_conversations(
    cursor: Any, import_id: int, kind: str, *, user_id: int, ids: set[int]
) -> list[int]:
    """The conversations that nothing but this import has added anything to. One statement."""
    params = {"import": import_id, "user": user_id, "ids": list(ids)}
    cursor.execute(_for_kind("empty_conversations", kind), params)
    return [pk for (pk,) in cursor.fetchall()]
