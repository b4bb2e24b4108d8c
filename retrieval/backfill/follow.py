"""Goes on for ever: embeds what becomes pending. ``backfill_embeddings --follow``"""

from collections.abc import Iterator

from django.db import Error, connection

from retrieval import current_model
from retrieval.backfill import pending
from retrieval.backfill.backfill_tables import Backfill
from retrieval.backfill.missing_rows import FILL_STEPS, MissingRows
from retrieval.backfill.progress_line import Report
from retrieval.backfill.sweep import sweep
from retrieval.db_errors import error_name
from retrieval.embeddings.errors import EmbeddingError, EmbeddingsNotConfigured, KeyRefused

LOOK_S = 10.0
MIN_AGE_S = 60.0  # a server may be embedding a younger message: pending.YOUNG
MAX_PAUSE_S = 60.0  # while the service fails; the first pause is LOOK_S, then it is doubled
MAX_FAILURES = 3  # that lengthen the pause
ENDING = (KeyRefused, EmbeddingsNotConfigured, current_model.ModelMismatch)


def follow(run: Backfill) -> Iterator[Report]:
    """Embed what is pending, and look again every LOOK_S; a report for each call.

    Other processes may embed at the same time. A service or a database that fails is waited for.
    Raises Cancelled at its end, KeyRefused, EmbeddingsNotConfigured, ModelMismatch, NoMemory.
    """
    model = run.model_to_embed()
    counts = [pending.count(table, model=model) for table in run.tables]
    table_runs = run.table_runs(counts, model)
    missing = MissingRows(run.tables, run.claims)
    with run.claims:
        failures = 0
        while True:
            pause_s = LOOK_S
            try:
                missing.fill_some(FILL_STEPS, run.limits)
                run.limits.wait(0)
                for report in sweep(table_runs, min_age_s=MIN_AGE_S):
                    run.embedded += report.embedded
                    yield report
                    failures = 0
                    run.limits.wait(run.sleep_s)
            except ENDING:
                raise
            except (EmbeddingError, Error) as failure:
                pause_s = min(LOOK_S * 2**failures, MAX_PAUSE_S)
                failures = min(failures + 1, MAX_FAILURES)
                _notify(run, failure, pause_s)
            run.limits.wait(pause_s)


def _notify(run: Backfill, failure: EmbeddingError | Error, pause_s: float) -> None:
    """Tell the operator what failed."""
    reason = str(failure) if isinstance(failure, EmbeddingError) else error_name(failure)
    if isinstance(failure, Error):
        connection.close()
    run.notify(f"{reason}; trying again in {pause_s:.0f} s")
