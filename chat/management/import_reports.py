"""What import_messages says at its end."""

from collections.abc import Mapping

from chat.transfer.formats import Preview
from chat.transfer.importing import Imported
from retrieval.embeddings.cost import cost_usd

# Reasons of chat/transfer/product_export.py and of the formats; after their number.
REASONS = {
    "already": "were imported before",
    "deleted": "of conversations that were deleted here since",
    "other_branch": "of branches that are not the current one",
    "system": "of the system, or custom instructions",
    "tool": "calls and results of tools",
    "reasoning": "of reasoning",
    "attachment": "attachments or images",
    "no_text": "without text",
    "too_long": "over 32,000 characters",
    "other_content": "of another kind of content",
    "unknown_message": "messages of an unknown form",
    "unknown_conversation": "conversations of an unknown form",
}


def imported_in_words(imported: Imported, import_id: int | None = None) -> str:
    """The report of an import; ``import_id`` of a product's export."""
    skipped = f"; {count(imported.skipped, 'bad line')} skipped" if imported.skipped else ""
    there = f" {imported.already:,} were there already{skipped}" if import_id is None else ""
    number = "" if import_id is None else f" this is import {import_id}"
    return (
        f"Imported {count(imported.messages, 'message')}"
        f" in {count(imported.conversations, 'conversation')} of {count(imported.users, 'user')};"
        f"{there}{number}\n"
        f"{left_out_in_words(imported.left_out)}"
        "They are found by words at once; backfill_embeddings embeds them."
    )


def preview_in_words(preview: Preview) -> str:
    return (
        f"{count(preview.messages, 'message')} in {count(preview.conversations, 'conversation')}"
        f" would be imported; embedding them costs ${cost_usd(preview.tokens):.4f}"
        f" ({preview.tokens:,} tokens)\n"
        f"{left_out_in_words(preview.left_out)}Nothing was imported."
    )


def left_out_in_words(left_out: Mapping[str, int]) -> str:
    """A line for each reason, the most frequent first; "" if nothing was left out."""
    frequent = sorted(left_out.items(), key=lambda reason: (-reason[1], reason[0]))
    return "".join(f"Left out: {number:,} {REASONS[name]}\n" for name, number in frequent if number)


def count(number: int, noun: str) -> str:
    """``1 user``, ``1,234 users``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
