"""The pages' fenced blocks: what is run, what it shows, and why one is not run."""

import re
from pathlib import Path
from typing import NamedTuple

# Before a block may stand, as comments: why it is not run, or with which code it ends.
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>.*?) -->\n)?(?:<!-- exit: (?P<exit>\d+) -->\n)?"
    r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A fenced block: its kind (sh, sql, python, text, json, …), its text, its line in the page.

    ``reason``: why it is not run; ``shown``: the text block after it, its output; ``exit``: the code it ends with.
    """

    kind: str
    text: str
    line: int
    reason: str | None = None
    shown: str | None = None
    exit: int = 0


def blocks_of(page: Path) -> list[Block]:
    """The page's blocks in order."""
    text = page.read_text()
    found = [
        Block(
            match["kind"], match["text"], text.count("\n", 0, match.start("text")),
            reason=match["reason"], exit=int(match["exit"] or 0),
        )
        for match in BLOCK.finditer(text)
    ]  # fmt: skip
    following = [one.text if one.kind == "text" else None for one in [*found[1:], Block("", "", 0)]]
    return [block._replace(shown=shown) for block, shown in zip(found, following, strict=False)]
