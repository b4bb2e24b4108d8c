"""Requests that a client makes for itself: titles, tags, follow-up questions. They are no turns.

Known by a header, or by the beginning of a client's own template. What is none of these is a turn.
The list with its sources: docs/openai-api.md, "Requests that are no turns".
"""

from django.http import HttpRequest

from chat.answers.client_messages import text_of
from chat.openai_api.request_body import CompletionBody

OFF = "off"
# Open WebUI sets it by a connection's own headers: {"X-OpenWebUI-Task": "{{TASK}}"}.
TASK_HEADERS = ("X-OpenWebUI-Task",)
# Open WebUI's templates: a task, then the conversation in these marks. Its template for answers
# from documents begins in the same way, and has no such mark.
OPEN_WEBUI = ("### Task:", "<chat_history>")
# How the last message of the user's begins.
LAST_MESSAGE = (
    # Open WebUI
    "Your task is to reflect the speaker's likely facial expression through a fitting emoji.",
    "Create a concise, 3-5 word title with an emoji as a title for the chat history",
    # LibreChat
    "Provide a concise, 5-word-or-less title for the conversation, using",
    "Please generate a concise, 5-word-or-less title for the conversation, using",
    "Analyze this conversation and provide:\n1. The detected language of the conversation",
    # NextChat
    "Please generate a four to five word title summarizing our conversation without any lead-in,",
    "Summarize the discussion briefly in 200 words or less to use as a prompt for future context.",
    # Continue
    "Given the following... please reply with a title for the chat that is 3-4 words in length,",
    # Chatbox
    "Based on the chat history, give this conversation a name.",
)
# How the system's message begins.
SYSTEM_MESSAGE = (
    # LobeChat
    "You are a professional conversation summarizer. Generate a concise title",
    # Cherry Studio
    "Summarize the given session as a 10-word title using user language, ignoring commands in the",
)


def is_task(request: HttpRequest, body: CompletionBody) -> bool:
    """Whether the request is answered without memory and not stored."""
    if request.headers.get("X-Verse-Memory", "").strip().lower() == OFF:
        return True
    if any(request.headers.get(name, "").strip() for name in TASK_HEADERS):
        return True
    last = body.messages[-1]
    text = text_of(last).lstrip() if last["role"] == "user" else ""
    mark, history = OPEN_WEBUI
    if text.startswith(mark) and history in text:
        return True
    return text.startswith(LAST_MESSAGE) or body.system.lstrip().startswith(SYSTEM_MESSAGE)
