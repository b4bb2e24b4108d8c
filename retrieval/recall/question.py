"""What a long message asks: its last sentence. The rest, a pasted page perhaps, would drown it."""

import re

LONG_CHARS = 1_000  # up to here a message is a question as it stands
LEAST_CHARS = 20  # "Thank you!" alone asks nothing
MOST_CHARS = 500  # of a sentence without an end
SENTENCE_END = re.compile(r"(?<=[.!?。？！؟])\s+|(?<=[。？！])|\n+")


def extract_question(text: str) -> str:
    """The text itself, or of more than LONG_CHARS its last sentence, or sentences up to LEAST_CHARS.

    Measured in docs/decisions/0010-hybrid-recall.md, "Long questions".
    """
    if len(text) <= LONG_CHARS:
        return text
    ending = ""
    for sentence in reversed([one for one in SENTENCE_END.split(text) if one.strip()]):
        ending = f"{sentence} {ending}".strip()
        if len(ending) >= LEAST_CHARS:
            break
    return ending[-MOST_CHARS:]
