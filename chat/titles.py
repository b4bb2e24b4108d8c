"""The title that a chat gets from its first message, at /v1 and on the pages."""

TITLE_CHARS = 80


def title_from(text: str) -> str:
    """The text's first line, at most TITLE_CHARS characters. The pages' chat.js does the same."""
    lines = text.strip().split("\n", 1)
    return lines[0].strip()[:TITLE_CHARS]
