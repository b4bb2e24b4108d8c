"""What embedding calls have cost, and whether they succeed: the table embedding_usage."""

from django.conf import settings
from django.utils import timezone

from retrieval.doctor.fixes import DOCTOR
from retrieval.doctor.queries import rows, value
from retrieval.doctor.report import Check, Finding, failed, passed, skipped, warning
from retrieval.embeddings import embedding_service, usage
from retrieval.embeddings.errors import EmbeddingError

WARN_AT = 0.8  # of the budget; docs/promises.md, "Settings"
HEADROOM = 1.5  # what is spent, times this, is the budget that a fix proposes
SPENT_THIS_MONTH = """
    SELECT coalesce(sum(cost_usd), 0)::float8 FROM embedding_usage
    WHERE day >= date_trunc('month', (now() AT TIME ZONE 'UTC')::date)
"""
# Usage is stored by day: the last 24 hours are in today and yesterday.
SINCE_YESTERDAY = """
    SELECT outcome, sum(calls)::bigint, sum(tokens)::bigint, sum(cost_usd)::float8
    FROM embedding_usage WHERE day >= (now() AT TIME ZONE 'UTC')::date - 1
    GROUP BY outcome ORDER BY outcome
"""
LAST_DAY = """
    SELECT outcome, sum(calls)::bigint FROM embedding_usage
    WHERE day = (SELECT max(day) FROM embedding_usage)
        AND day >= (now() AT TIME ZONE 'UTC')::date - 1
    GROUP BY outcome
"""
FIXES = {
    "KeyRefused": "OPENAI_API_KEY=a key that the service takes",
    "QuotaExceeded": "raise the account's limit at the service",
}
CALL_SERVICE = f"{DOCTOR} --online"


def spending_is_within_budget() -> Finding:
    """This month's cost against EMBEDDING_BUDGET_USD: WARN at 80 %, FAIL beyond it."""
    spent, budget = value(SPENT_THIS_MONTH), settings.EMBEDDING_BUDGET_USD
    month = timezone.now().strftime("%B %Y")
    if budget is None:
        return skipped(
            f"no budget is set; spent in {month}: ${spent:,.4f}", "EMBEDDING_BUDGET_USD=5"
        )
    detail = f"${spent:,.4f} of ${budget:,.2f} spent in {month}"
    if spent <= WARN_AT * budget:
        return passed(detail)
    detail += "; EMBEDDINGS=none stops all spending"
    report = warning if spent <= budget else failed
    return report(detail, f"EMBEDDING_BUDGET_USD={max(spent * HEADROOM, 0.01):.2f}")


def calls_succeed() -> Finding:
    """Calls of today and yesterday. WARN if the last day with calls has no successful one."""
    outcomes = rows(SINCE_YESTERDAY)
    calls = ", ".join(f"{count:,} {outcome}" for outcome, count, _, _ in outcomes)
    tokens, cost_usd = sum(row[2] for row in outcomes), sum(row[3] for row in outcomes)
    detail = f"calls since yesterday (UTC): {calls or 'none'}; {tokens:,} tokens, ${cost_usd:,.4f}"
    last_day = dict(rows(LAST_DAY))
    if not last_day or last_day.get(usage.OK):
        return passed(detail)
    reason = max(last_day, key=lambda outcome: last_day[outcome])
    fixes = [FIXES[reason], CALL_SERVICE] if reason in FIXES else [CALL_SERVICE]
    return warning(f"no call has succeeded on the last day with calls; {detail}", "\n".join(fixes))


def service_answers() -> Finding:
    """One call to the embedding service, of some four tokens."""
    if embedding_service.model_name() is None:
        return skipped("nothing embeds with these settings", "OPENAI_API_KEY=your key")
    try:
        vector = embedding_service.get_embedding("Good morning.")
    except EmbeddingError as error:
        fix = FIXES.get(type(error).__name__, CALL_SERVICE)
        return failed(f"the embedding service: {error}", fix)
    finally:
        usage.flush()
    return passed(f"{embedding_service.model_name()} answers with {vector.size:,} numbers")


CHECKS = [
    Check("criterion.6", spending_is_within_budget),
    Check("embedding.calls", calls_succeed),
    Check("embedding.online", service_answers, option="online", in_transaction=False),
]
