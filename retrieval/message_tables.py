"""The tables that hold messages, and how one number names a message of any of them."""

from dataclasses import dataclass

from psycopg import sql


@dataclass(frozen=True)
class MessageTable:
    """A table of messages; ``kind_bit`` (0 or 1) tells its rows from the other's in memory's table.

    The table has the columns id, user_id, role, content, created_at, edited_at, and
    ``conversation``: its parent. ``remembered`` is SQL: whether the settings of its user and
    conversation let a row ``m`` be embedded.
    """

    kind_bit: int
    table: str
    conversation: str
    remembered: str = "true"

    def pack_ref(self, pk: int) -> int:
        """The number that names row ``pk`` (or conversation ``pk``) among those of both tables."""
        return pk * 2 + self.kind_bit

    @property
    def names(self) -> dict[str, sql.Composable]:
        """For ``sql.SQL.format``: {table}, {conversation} (a column) and {kind_bit}."""
        return {
            "table": sql.Identifier(self.table),
            "conversation": sql.Identifier(self.conversation),
            "kind_bit": sql.Literal(self.kind_bit),
        }

    def key_of(self, ref: sql.Composable) -> sql.Composed:
        """SQL: the id of the row that ``ref`` names, NULL if it names one of the other table."""
        return KEY.format(ref=ref, **self.names)


KEY = sql.SQL("CASE WHEN ({ref} & 1) = {kind_bit} THEN {ref} >> 1 END")
ROW = sql.SQL("SELECT {columns} FROM {table} WHERE id = {key}")


def unpack_ref(ref: int) -> tuple[int, int]:
    """The table's kind bit and the row's id that a packed number names."""
    return ref & 1, ref >> 1


def select_message(
    tables: list[MessageTable], columns: sql.SQL, *, ref: sql.Composable
) -> sql.Composed:
    """SQL: ``columns`` of the message that ``ref`` names, to stand inside LATERAL (...).

    The key is computed for each ``ref``, so that the planner looks up one row by the primary key
    instead of joining whole tables. ``columns`` may hold {kind_bit}.
    """
    return sql.SQL(" UNION ALL ").join(
        ROW.format(columns=columns.format(**table.names), key=table.key_of(ref), **table.names)
        for table in tables
    )
