"""The pages' fenced blocks: what is run, what it shows, and why one is not run."""

import re
from pathlib import Path
from typing import NamedTuple

# The operators' pages that tests/test_guide.py runs, in this order: the first list adds memory to a live
# chat and takes it away again, the second runs on a server that has it.
ROLLOUT = [
    "howto/connect-with-psql",
    "howto/start-and-stop",
    "deployment",
    "howto/verify-the-schema",
    "howto/backfill-embeddings",
    "howto/rebuild-indexes",
    "howto/roll-out-to-some-users",
    "howto/monitor-memory",
    "howto/turn-memory-off",
    "howto/back-up-and-restore",
    "howto/enable-the-extension",
    "howto/adopt-existing-tables",
]
OPERATION = [
    "howto/install-and-start",
    "settings",
    "howto/import-and-export-messages",
    "doctor",
    "howto/troubleshoot",
    "howto/control-costs",
    "howto/health-checks",
    "howto/size-connection-pools",
    "howto/use-the-embedded-postgresql",
    "howto/run-daily-jobs",
    "howto/create-api-tokens",
]
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
