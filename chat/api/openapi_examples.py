"""What the API's page says of each operation: a summary, and an example of request and response."""

from typing import Any, NamedTuple

AT = "2026-11-25T08:00:00.123456Z"
MEMORY = {
    "message_id": 177,
    "source": {"kind": "chat", "id": 15, "title": "Train to Trieste"},
    "role": "user",
    "content": "Booked: we take the train to Trieste after all.",
    "created_at": "2026-10-15T17:24:11Z",
    "score": 2.9071,
}
QUESTION = {
    "id": 201,
    "role": "user",
    "content": "Are we flying to Trieste?",
    "status": "complete",
    "created_at": AT,
    "context": [],
}
ANSWER = {
    "id": 202,
    "role": "assistant",
    "content": "No, you booked the train.",
    "status": "complete",
    "created_at": AT,
    "context": [MEMORY],
}
TOKENS = {"prompt_tokens": 412, "completion_tokens": 9, "cached_tokens": 0}
TURN = {
    "user_message": QUESTION,
    "assistant_message": ANSWER,
    "context": [MEMORY],
    "usage": TOKENS,
}
USAGE = {
    "day": TOKENS | {"embedding_tokens": 21},
    "month": TOKENS | {"prompt_tokens": 90_412, "embedding_tokens": 3_021},
    "limit": 50_000,
    "resets_at": "2026-11-26T00:00:00Z",
}
EVENTS = 'event: delta\ndata: {"text": "No, you"}\n\n'
TOKEN = {"id": 3, "name": "laptop", "created_at": AT, "last_used_at": None}
STATE = {
    "enabled": True,
    "messages": 208,
    "embedded": 207,
    "pending": 1,
    "failed": 0,
    "mode": "hybrid",
}
FOUND = {"mode": "hybrid", "results": [MEMORY]}
RECEIPT = {"deleted": {"standalone_chat_messages": 208, "standalone_chats": 16}, "at": AT}
IMPORT = {
    "id": 7,
    "format": "chatgpt",
    "status": "done",
    "conversations": 310,
    "messages": 4127,
    "left_out": {"tool": 96, "other_branch": 41},
    "detail": "",
    "created_at": AT,
}
LINE = '{"table": "standalone_chats", "id": 15, "title": "Train to Trieste"}\n'


class Operation(NamedTuple):
    """The examples are JSON values, or text for other media types; None for no body."""

    summary: str
    request: Any
    response: Any


def page(*results: Any) -> dict[str, Any]:
    return {"next": None, "previous": None, "results": list(results)}


def conversation_operations(
    kind: str, name: str, fields: dict[str, Any], change: dict[str, Any]
) -> dict[str, Operation]:
    """Those of one kind of conversation; ``kind`` as in operation ids, ``name`` in sentences."""
    times = {"created_at": AT, "updated_at": AT}
    conversation = {"id": 15, **fields, "memory": True, **times}
    detailed = conversation | {"keep": False}
    edited = QUESTION | {"content": "Are we flying to Vienna?"}
    stopped = ANSWER | {"content": "No, you", "status": "interrupted"}
    operations = {
        "list": Operation(f"List your {name}s", None, page(conversation)),
        "create": Operation(f"Make a {name}", fields, conversation),
        "retrieve": Operation(f"Read a {name}", None, detailed),
        "partial_update": Operation(f"Change a {name}", change, detailed | change),
        "destroy": Operation(f"Delete a {name} with its messages", None, None),
        "messages_list": Operation("List messages, oldest first", None, page(QUESTION, ANSWER)),
        "messages_create": Operation(
            "Post a message and get its answer", {"content": QUESTION["content"]}, TURN
        ),
        "messages_retrieve": Operation("Read a message", None, ANSWER),
        "messages_partial_update": Operation(
            "Edit a message of your own", {"content": edited["content"]}, edited
        ),
        "messages_destroy": Operation("Forget a message", None, None),
        "messages_events_retrieve": Operation("Follow an answer", None, EVENTS),
        "messages_stop_create": Operation("Stop an answer", None, stopped),
        "messages_regenerate_create": Operation("Answer the last message again", None, TURN),
    }
    return {f"{kind}_{operation}": what for operation, what in operations.items()}


OPERATIONS = {
    "auth_token_create": Operation(
        "Make a token with a password",
        {"username": "alice", "password": "…", "name": "laptop"},
        {"token": "PxY8…", "id": 3},
    ),
    "auth_tokens_list": Operation("List your tokens", None, page(TOKEN)),
    "auth_tokens_destroy": Operation("Revoke a token", None, None),
    "memory_retrieve": Operation("Read the state of your memory", None, STATE),
    "memory_partial_update": Operation(
        "Turn your memory on or off", {"enabled": False}, STATE | {"enabled": False, "mode": "off"}
    ),
    "memory_destroy": Operation(
        "Erase your conversations and memory", {"confirm": "alice"}, RECEIPT
    ),
    "memory_export_retrieve": Operation("Export everything about you", None, LINE),
    "memory_import_list": Operation("List your imports", None, page(IMPORT)),
    "memory_import_create": Operation(
        "Import messages from a file", {"file": "export.zip", "format": "chatgpt"}, {"id": 7}
    ),
    "memory_import_retrieve": Operation("See how far an import is", None, IMPORT),
    "memory_import_destroy": Operation("Remove what an import added", None, None),
    "memory_search_retrieve": Operation("Search in your memory", None, FOUND),
    "usage_retrieve": Operation("See how many tokens you have used", None, USAGE),
    **conversation_operations(
        "chats", "chat", {"title": "Train to Trieste"}, {"title": "Trieste by train"}
    ),
    **conversation_operations(
        "passages",
        "passage",
        {"reference": "Tobit 6:1", "text": "And the dog followed."},
        {"memory": False},
    ),
}


def add_examples(result: dict[str, Any], **options: Any) -> dict[str, Any]:
    """drf-spectacular's postprocessing hook: add OPERATIONS to the schema."""
    for path in result["paths"].values():
        for described in path.values():
            operation = OPERATIONS.get(described.get("operationId", ""))
            if operation:
                _describe(described, operation)
    return result


def _describe(described: dict[str, Any], operation: Operation) -> None:
    described["summary"] = operation.summary
    # DELETE has no body in OpenAPI; the description says what /api/memory/ wants.
    for content in described.get("requestBody", {}).get("content", {}).values():
        content["example"] = operation.request
    succeeded = next(iter(sorted(described["responses"])))
    for content in described["responses"][succeeded].get("content", {}).values():
        content["example"] = operation.response
