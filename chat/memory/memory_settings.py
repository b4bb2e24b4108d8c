"""What a user has excluded from memory: everything, or single conversations.

Only reads. The API and the admin write both.
"""

from dataclasses import dataclass

from chat.models import Message
from retrieval.queries import row

# Locks: nothing. The tables exist in a schema without memory, too.
SELECT_SETTINGS = """
    SELECT coalesce((SELECT enabled FROM memory_switches WHERE user_id = %(user)s), true),
        ARRAY(SELECT id * 2 FROM standalone_chats WHERE user_id = %(user)s AND NOT memory
            UNION ALL SELECT id * 2 + 1 FROM passages WHERE user_id = %(user)s AND NOT memory)
"""


@dataclass(frozen=True)
class MemorySettings:
    """The user's switch, and packed refs of the conversations whose ``memory`` is off."""

    enabled: bool
    hidden: list[int]

    def allow(self, message: Message) -> bool:
        """Whether the message may be embedded, and memories recalled for it."""
        if not message.conversation_id:  # it is not saved yet
            return self.enabled
        conversation = message.memory_table.pack_ref(message.conversation_id)
        return self.enabled and conversation not in self.hidden


def memory_settings_of(user_id: int) -> MemorySettings:
    """One query."""
    return MemorySettings(*row(SELECT_SETTINGS, {"user": user_id}))
