"""What an assistant reads of the tools: when to call each, and with what."""

from typing import Any, NamedTuple

INSTRUCTIONS = (
    "Memory of this person's conversations over months and years. Search it before you answer a "
    "question about the person, their plans, people, places or earlier talks, and before you say "
    "that you do not know. Keep what they ask you to remember."
)
ID = {"type": "string", "description": "The id of a message, such as chat-12 or passage-7."}
DAY = "A day or time, ISO 8601, such as 2024-05-03 or 2024-05-03T10:00:00Z."
ITEM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "title": {"type": "string", "description": "The conversation's title."},
        "text": {"type": "string"},
        "role": {"type": "string", "enum": ["user", "assistant"]},
        "created_at": {"type": "string", "format": "date-time"},
    },
    "required": ["id", "title", "text", "role", "created_at"],
}
TURNS = {"type": "array", "items": ITEM}


class Description(NamedTuple):
    """A tool as clients see it; ``hints`` are those of MCP's ToolAnnotations."""

    title: str
    text: str
    arguments: dict[str, Any]
    required: list[str]
    result: dict[str, Any]
    hints: dict[str, bool]

    @property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments."""
        fields = {"properties": self.arguments, "required": self.required}
        return {"type": "object", "additionalProperties": False} | fields


READ_ONLY = {"read_only_hint": True, "open_world_hint": False}
TOOLS = {
    "search": Description(
        "Search memory",
        "Find what this person or their assistant said before, by meaning and by words, best "
        "first. Write the query as a short, complete question or statement with the names in it, "
        "in the language of the person: 'What is Anna's dog called?' rather than 'dog'. Ask for "
        "one thing at a time; search again with other words if nothing fits. Words such as "
        "'yesterday' or 'last week' are understood. Texts over 2,000 characters are cut: fetch "
        "has the whole, and the turns around it.",
        {
            "query": {"type": "string", "description": "What to look for, a sentence."},
            "limit": {"type": "integer", "minimum": 1, "maximum": 50},
            "since": {"type": "string", "description": f"Only messages from then on. {DAY}"},
            "until": {"type": "string", "description": f"Only messages until then. {DAY}"},
        },
        ["query"],
        {"type": "object", "properties": {"results": TURNS}, "required": ["results"]},
        READ_ONLY,
    ),
    "fetch": Description(
        "Read a message",
        "Read a message that search has found, whole, with the two turns before and after it. Use "
        "it where a result is cut, or where its meaning depends on what was said around it.",
        {"id": ID},
        ["id"],
        {
            "type": "object",
            "properties": ITEM["properties"] | {"before": TURNS, "after": TURNS},
            "required": [*ITEM["required"], "before", "after"],
        },
        READ_ONLY,
    ),
    "remember": Description(
        "Remember a text",
        "Keep a text for later conversations: a fact, a decision, a preference that the person "
        "wants remembered. Write one fact as a sentence that is clear without this conversation, "
        "with names and dates: 'Anna's birthday is on 3 May.' The same text is kept once.",
        {
            "text": {"type": "string", "description": "At most 32,000 characters."},
            "title": {"type": "string", "description": "A heading, kept above the text."},
        },
        ["text"],
        ITEM,
        {"read_only_hint": False, "destructive_hint": False, "idempotent_hint": True}
        | {"open_world_hint": False},
    ),
    "forget": Description(
        "Forget a message",
        "Delete a message for ever, from its conversation too; what was answered with it is not "
        "recalled any more. Only where the person asks for it, and after you have shown them "
        "the message.",
        {"id": ID},
        ["id"],
        {
            "type": "object",
            "properties": {"forgotten": {"type": "string"}},
            "required": ["forgotten"],
        },
        {"read_only_hint": False, "destructive_hint": True, "idempotent_hint": True}
        | {"open_world_hint": False},
    ),
}
