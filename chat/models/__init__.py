"""The chat's tables.

Every column of a message beyond user, conversation, role, content and time is nullable or has a
``db_default``: rows written by SQL, or by a version without the column, stay valid.
"""

from chat.models.conversations import (
    MAX_CONTENT_CHARS,
    Conversation,
    OwnedQuerySet,
    Passage,
    StandaloneChat,
)
from chat.models.imports import ImportedItem, ImportStatus, MemoryImport
from chat.models.kept_conversations import KeptConversation, RetentionState
from chat.models.messages import (
    KINDS,
    ChatMessage,
    Message,
    MessageQuerySet,
    Role,
    StandaloneChatMessage,
    Status,
    context_entries,
)
from chat.models.turn_state import ClientChat, IdempotencyKey, RunningAnswer
from chat.models.user_state import ApiToken, MemorySwitch, RateWindow

__all__ = [
    "KINDS",
    "MAX_CONTENT_CHARS",
    "ApiToken",
    "ChatMessage",
    "ClientChat",
    "Conversation",
    "IdempotencyKey",
    "ImportStatus",
    "ImportedItem",
    "KeptConversation",
    "MemoryImport",
    "MemorySwitch",
    "Message",
    "MessageQuerySet",
    "OwnedQuerySet",
    "Passage",
    "RateWindow",
    "RetentionState",
    "Role",
    "RunningAnswer",
    "StandaloneChat",
    "StandaloneChatMessage",
    "Status",
    "context_entries",
]
