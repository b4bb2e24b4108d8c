"""Which chat a request names: by its number, or by an id of the client's own. docs/openai-api.md"""

from dataclasses import dataclass
from hashlib import sha256

from django.http import HttpRequest

from chat.openai_api.errors import InvalidRequest
from chat.openai_api.request_body import CompletionBody

# The id of a conversation, as clients send it, or can be configured to. The first wins.
CLIENT_HEADERS = (
    "X-Verse-Client-Chat",
    "X-OpenWebUI-Chat-Id",  # Open WebUI with ENABLE_FORWARD_USER_INFO_HEADERS=true
    "X-LibreChat-Conversation-Id",  # the usual name for LIBRECHAT_BODY_CONVERSATIONID
    "X-Conversation-Id",  # LibreChat and others, as their guides show it
    "X-Session-Affinity",  # opencode
    "X-Opencode-Session",
    "X-Session-Id",
)
TEMPORARY = "local:"  # how Open WebUI names a chat that it does not keep
MAX_ID_CHARS = 255
MAX_DIGITS = 20  # more than any id has


@dataclass(frozen=True)
class ChatName:
    """How the request names its chat: by ``number``, by ``client_id``, or not at all."""

    number: int | None = None
    client_id: str = ""
    is_temporary: bool = False


def chat_name(request: HttpRequest, body: CompletionBody) -> ChatName:
    """Raises InvalidRequest if X-Verse-Chat is no number."""
    header = request.headers.get("X-Verse-Chat", "").strip()
    if header and not (header.isascii() and header.isdigit()):
        raise InvalidRequest("X-Verse-Chat: the number of a chat.", param="X-Verse-Chat")
    number = header or (body.chat_id if body.chat_id.isascii() and body.chat_id.isdigit() else "")
    if number:
        return ChatName(number=int(number[:MAX_DIGITS]))
    headers = (request.headers.get(name, "").strip() for name in CLIENT_HEADERS)
    own, *known = headers
    client_id = next(filter(None, (own, body.chat_id.strip(), *known)), "")
    if client_id.startswith(TEMPORARY):
        return ChatName(is_temporary=True)
    return ChatName(client_id=_storable(client_id))


def _storable(client_id: str) -> str:
    """The id itself; of a very long one, or one that PostgreSQL cannot store, its digest."""
    if len(client_id) <= MAX_ID_CHARS and client_id.isprintable():
        return client_id
    return sha256(client_id.encode(errors="surrogatepass")).hexdigest()
