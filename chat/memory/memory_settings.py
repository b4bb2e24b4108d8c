"""What a user has turned off: all of memory, or some conversations."""

from dataclasses import dataclass

from django.db import connection

from chat.models import Message

SWITCHES = """
    SELECT coalesce((SELECT enabled FROM memory_switches WHERE user_id = %(user)s), true),
        ARRAY(SELECT id * 2 FROM standalone_chats WHERE user_id = %(user)s AND NOT memory
            UNION ALL SELECT id * 2 + 1 FROM passages WHERE user_id = %(user)s AND NOT memory)
"""


@dataclass(frozen=True)
class MemorySettings:
    """What a user has turned off: all of memory, or the conversations with these references."""

    enabled: bool
    hidden: list[int]

    def allow(self, message: Message) -> bool:
        """Whether the message may be embedded, and recall for it."""
        return (
            self.enabled
            and message.memory_table.pack_ref(message.conversation_id) not in self.hidden
        )


def memory_settings_of(user_id: int) -> MemorySettings:
    """One query, of tables that are there without memory too."""
    with connection.cursor() as cursor:
        cursor.execute(SWITCHES, {"user": user_id})
        enabled, hidden = cursor.fetchone() or (True, [])
    return MemorySettings(enabled, list(hidden))
