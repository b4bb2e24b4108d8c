"""What a long message asks: its last sentence. The rest, such as a pasted page, would drown it."""

import re

LONG_CHARS = 1_000  # a message of at most this length is the question as it is
MIN_CHARS = 20  # "Thank you!" alone asks nothing
MAX_CHARS = 500  # of a sentence without an end
SENTENCE_END = re.compile(r"(?<=[.!?。？！؟])\s+|(?<=[。？！])|\n+")


def extract_question(text: str) -> str:
    """The text, or the last sentences of a long one (LONG_CHARS) that have MIN_CHARS together.

    Measured in docs/decisions/0010-hybrid-recall.md, "Long questions".
    """
    if len(text) <= LONG_CHARS:
        return text
    ending = ""
    end = text.rstrip()[-LONG_CHARS:]
    for sentence in reversed([part for part in SENTENCE_END.split(end) if part.strip()]):
        ending = f"{sentence} {ending}".strip()
        if len(ending) >= MIN_CHARS:
            break
    return ending[-MAX_CHARS:]
