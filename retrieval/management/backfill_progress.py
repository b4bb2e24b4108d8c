"""Run the two parts of a backfill and show how far they are."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter

from retrieval.backfill import Backfill
from retrieval.backfill.progress_line import Report
from retrieval.management.progress import Progress


def fill_words(run: Backfill, progress: Progress) -> None:
    """Index the messages for recall by words, and show how many."""
    for table, steps in groupby(run.fill_words(), key=itemgetter(0)):
        filled = 0
        for _, rows in steps:
            filled += rows
            line = f"{table.table}: {filled:,} messages indexed for recall by words"
            progress.update(
                f"{table.table}, words", filled, None, unit="messages", line=f"{line} so far"
            )
        if filled:
            progress.write(line)


def embed(reports: Iterable[Report], run: Backfill, progress: Progress) -> None:
    """Embed what is pending, and show each batch."""
    for report in reports:
        progress.update(
            report.table,
            report.done,
            report.total,
            unit="messages",
            note=f"${run.limits.spending.usd:.4f}",
            line=str(report),
            at_once=True,
        )


@contextmanager
def silence_logs() -> Iterator[None]:
    """The command reports the service's failures itself: no log line for each try as well."""
    logger = logging.getLogger("retrieval")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
