"""What embedding has cost, and how it went: table embedding_usage. ``--online`` makes one call."""

from django.conf import settings
from django.utils import timezone

from retrieval.doctor.queries import rows
from retrieval.doctor.report import Check, Finding, failed, passed, skipped, warning
from retrieval.embeddings import embedding_service, usage
from retrieval.embeddings.errors import EmbeddingError

WARN_AT = 0.8  # of the budget; contract section 2
HEADROOM = 1.5  # a budget that is proposed, of what was spent
TODAY = "(now() AT TIME ZONE 'UTC')::date"
MONTH = f"SELECT coalesce(sum(cost_usd), 0)::float8 FROM embedding_usage WHERE day >= date_trunc('month', {TODAY})"
# A day is the smallest unit kept: the last 24 hours are in today and yesterday.
SINCE_YESTERDAY = f"""
    SELECT outcome, sum(calls)::bigint, sum(tokens)::bigint, sum(cost_usd)::float8 FROM embedding_usage
    WHERE day >= {TODAY} - 1 GROUP BY outcome ORDER BY outcome
"""
LAST_DAY = f"""
    SELECT outcome, calls FROM embedding_usage WHERE day = (SELECT max(day) FROM embedding_usage)
        AND day >= {TODAY} - 1
"""
HELP = {
    "KeyRefused": "OPENAI_API_KEY=a key that the service takes",
    "QuotaExceeded": "raise the account's limit at the service",
}
ONLINE = "python manage.py rag_doctor --online"


def stays_in_budget() -> Finding:
    """criterion.6."""
    spent, budget = rows(MONTH)[0][0], settings.EMBEDDING_BUDGET_USD
    month = timezone.now().strftime("%B %Y")
    if budget is None:
        return skipped(
            f"no budget is set; spent in {month}: ${spent:,.4f}", "EMBEDDING_BUDGET_USD=5"
        )
    said = f"${spent:,.4f} of ${budget:,.2f} spent in {month}"
    if spent <= WARN_AT * budget:
        return passed(said)
    raised = f"EMBEDDING_BUDGET_USD={max(spent * HEADROOM, 0.01):.2f}"
    said += "; EMBEDDINGS=none stops all spending"
    return warning(said, raised) if spent <= budget else failed(said, raised)


def calls_succeed() -> Finding:
    """Calls of today and yesterday, with failures by reason; WARN where the last day with calls has no success."""
    found = rows(SINCE_YESTERDAY)
    calls = ", ".join(f"{count:,} {outcome}" for outcome, count, _, _ in found)
    tokens, cost = sum(one[2] for one in found), sum(one[3] for one in found)
    said = f"calls since yesterday (UTC): {calls or 'none'}; {tokens:,} tokens, ${cost:,.4f}"
    last = dict(rows(LAST_DAY))
    if last and not last.get(usage.OK):
        reason = max(last, key=lambda outcome: last[outcome])
        help_ = [HELP[reason]] if reason in HELP else []
        return warning(
            f"no call has succeeded on the last day with calls; {said}", "\n".join([*help_, ONLINE])
        )
    return passed(said)


def answers_a_call() -> Finding:
    """``--online``: one call, of some four tokens."""
    if embedding_service.model_name() is None:
        return skipped("nothing embeds with these settings", "OPENAI_API_KEY=your key")
    try:
        vector = embedding_service.get_embedding("Good morning.")
    except EmbeddingError as error:
        name = type(error).__name__
        return failed(f"the embedding service: {error}", HELP.get(name, ONLINE))
    finally:
        usage.flush()
    return passed(f"{embedding_service.model_name()} answers with {vector.size:,} numbers")


CHECKS = [
    Check("criterion.6", stays_in_budget),
    Check("embedding.calls", calls_succeed),
    Check("embedding.online", answers_a_call, option="online", alone=True),
]
