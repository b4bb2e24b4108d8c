"""Which tables hold messages, and how one number names a message of any of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MessageTable:
    """A table of messages; ``kind_bit`` (0 or 1) tells its rows apart from the other's in recall's own table.

    The table has the columns id, user_id, role, content, created_at, edited_at, and ``conversation``: its parent.
    ``remembered`` is SQL: whether a row ``m`` of it may be embedded, by whatever switches its owner has. ``lost``:
    whether it may repeat a message that is gone, or was changed since.
    """

    kind_bit: int
    table: str
    conversation: str
    remembered: str = "true"
    lost: str = "false"

    def pack_ref(self, pk: int) -> int:
        """The number that names row ``pk`` (or conversation ``pk``) among those of both tables."""
        return pk * 2 + self.kind_bit


def unpack_ref(reference: int) -> tuple[int, int]:
    """The source's number and the row's id that a reference names."""
    return reference & 1, reference >> 1
