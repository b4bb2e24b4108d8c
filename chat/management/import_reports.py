"""What import_messages says at its end."""

from collections.abc import Mapping

from chat.transfer.formats import Preview
from chat.transfer.importing import Imported
from chat.transfer.reasons import in_words
from retrieval.embeddings.cost import cost_usd


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
    """A line for each reason; "" if nothing was left out."""
    return "".join(f"Left out: {phrase}\n" for phrase in in_words(left_out))


def count(number: int, noun: str) -> str:
    """``1 user``, ``1,234 users``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
