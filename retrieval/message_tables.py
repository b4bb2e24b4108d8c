"""The tables that hold messages, and how one number names a message of any of them."""

from dataclasses import dataclass

from psycopg import sql

# A copy of a message, in a conversation that branched from another: never embedded nor recalled.
IS_COPY = sql.SQL("""coalesce(m.context @> '[{"copy": true}]', false)""")
# Whether message ``m`` can be embedded, whatever settings say: an answer that has ended has text.
HAS_TEXT = sql.SQL(
    "(m.content <> '' AND m.status IN ('complete', 'interrupted') AND NOT {})"
).format(IS_COPY)
# Whether the settings of its user and its conversation let message ``m`` be embedded.
IS_REMEMBERED = sql.SQL("""
    m.status IN ('complete', 'interrupted') AND NOT {is_copy}
    AND EXISTS (SELECT FROM {conversations} c WHERE c.id = m.{conversation} AND c.memory)
    AND NOT EXISTS (SELECT FROM memory_switches s WHERE s.user_id = m.user_id AND NOT s.enabled)
""")
MESSAGE_REF = sql.SQL("m.id * 2 + {}")
KEY = sql.SQL("CASE WHEN ({ref} & 1) = {kind_bit} THEN {ref} >> 1 END")
MESSAGE = sql.SQL("SELECT {columns} FROM {table} WHERE id = {key}")


@dataclass(frozen=True)
class MessageTable:
    """A table of messages; ``kind_bit`` (0 or 1) tells its rows from those of the other.

    ``conversation`` is the column with the id of a row of the table ``conversations``.
    """

    kind_bit: int
    table: str
    conversation: str
    conversations: str

    def pack_ref(self, pk: int) -> int:
        """The number that names row ``pk`` (or conversation ``pk``) among those of both tables."""
        return pk * 2 + self.kind_bit

    @property
    def names(self) -> dict[str, sql.Composable]:
        """The fields, for ``sql.SQL.format``; {message_ref} is the packed id of row ``m``."""
        return {
            "table": sql.Identifier(self.table),
            "conversation": sql.Identifier(self.conversation),
            "conversations": sql.Identifier(self.conversations),
            "kind_bit": sql.Literal(self.kind_bit),
            "message_ref": MESSAGE_REF.format(sql.Literal(self.kind_bit)),
        }

    @property
    def is_remembered(self) -> sql.Composed:
        """SQL: whether row ``m`` of the table may be embedded."""
        return IS_REMEMBERED.format(is_copy=IS_COPY, **self.names)

    def key_of(self, ref: sql.Composable) -> sql.Composed:
        """SQL: the id of the row that ``ref`` names, NULL if it names a row of the other table."""
        return KEY.format(ref=ref, **self.names)


def unpack_ref(ref: int) -> tuple[int, int]:
    """The table's kind bit and the row's id that a packed number names."""
    return ref & 1, ref >> 1


def select_message(
    tables: list[MessageTable], columns: sql.SQL, *, ref: sql.Composable
) -> sql.Composed:
    """SQL: ``columns`` of the message that ``ref`` names, to stand inside LATERAL (...).

    ``columns`` may hold {kind_bit}. LIMIT 1 keeps it a lookup by primary key for each ref: as a
    join the planner may read whole tables, ten seconds for five answers among 300,000 messages.
    """
    rows = sql.SQL(" UNION ALL ").join(
        MESSAGE.format(columns=columns.format(**table.names), key=table.key_of(ref), **table.names)
        for table in tables
    )
    return sql.SQL("{} LIMIT 1").format(rows)
