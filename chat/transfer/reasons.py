"""Why messages of a file were left out, in words; the counts are kept by short names."""

from collections.abc import Mapping

# After their number. Names: chat/transfer/product_export.py and the readers of each product.
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


def in_words(left_out: Mapping[str, int]) -> list[str]:
    """A phrase for each reason, the most frequent first: ``41 of reasoning``."""
    frequent = sorted(left_out.items(), key=lambda reason: (-reason[1], reason[0]))
    return [f"{number:,} {REASONS.get(name, name)}" for name, number in frequent if number]
