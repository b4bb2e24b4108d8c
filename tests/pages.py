"""Reads the fenced blocks of docs pages: commands, their output, and why a block is not run."""

import re
from pathlib import Path
from typing import NamedTuple

# The operators' pages that tests/test_guide.py runs, in this order. The first list adds memory to
# a live chat and removes it again; the second runs on a server with memory.
ROLLOUT = [
    "howto/connect-with-psql",
    "howto/start-and-stop-a-server",
    "deployment",
    "howto/verify-the-schema",
    "howto/backfill-embeddings",
    "howto/rebuild-indexes",
    "howto/roll-out-to-some-users",
    "howto/monitor-memory",
    "howto/set-alerts",
    "howto/rotate-a-key",
    "howto/turn-memory-off",
    "howto/back-up-and-restore",
    "howto/enable-the-extension",
    "howto/adopt-existing-tables",
]
OPERATION = [
    "howto/install-and-start",
    "settings",
    "rollout",
    "howto/import-and-export-messages",
    "doctor",
    "howto/troubleshoot",
    "howto/control-costs",
    "howto/limit-tokens",
    "howto/health-checks",
    "howto/size-connection-pools",
    "howto/use-the-embedded-postgresql",
    "howto/run-daily-jobs",
    "howto/change-the-stemming-language",
    "howto/create-api-tokens",
    "howto/delete-old-conversations",
]
# Kinds of blocks that are run. "dotenv": settings that the page tells the reader to write.
RUN = {"dotenv", "sh", "sql", "python"}
# The pages of the API: one session, run by tests/test_docs.py in this order.
API = [
    "api",
    "api/messages",
    "api/stop-and-regenerate",
    "api/idempotency",
    "api/memory",
    "api/rate-limits",
    "api/usage",
    "api/export-and-erase",
]
# Comments before a block say why it is not run, or its exit code.
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>.*?) -->\n)?(?:<!-- exit: (?P<exit>\d+) -->\n)?"
    r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A fenced block with its kind (sh, sql, python, text, json, …) and its line in the page.

    ``reason``: why it is not run. ``shown``: its output, the text block after it. ``exit``: its
    exit code.
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
    blocks = [
        Block(
            match["kind"],
            match["text"],
            text.count("\n", 0, match.start("text")),
            reason=match["reason"],
            exit=int(match["exit"] or 0),
        )
        for match in BLOCK.finditer(text)
    ]
    outputs = [block.text if block.kind == "text" else None for block in blocks[1:]]
    pairs = zip(blocks, [*outputs, None], strict=False)
    return [block._replace(shown=output) for block, output in pairs]
