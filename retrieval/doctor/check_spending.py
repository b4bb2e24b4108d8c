"""What embedding calls have cost, and whether they succeed: the table embedding_usage."""

from datetime import timedelta

from django.conf import settings
from django.db.models import Max, QuerySet, Sum
from django.utils import timezone

from retrieval.doctor.fixes import DOCTOR, GRANT_ROLES, MIGRATE
from retrieval.doctor.report import Check, Finding, failed, passed, skipped, warning
from retrieval.embeddings import embedding_service, usage
from retrieval.embeddings.errors import EmbeddingError
from retrieval.models import EmbeddingUsage

WARN_AT = 0.8  # of the budget; docs/promises.md, "Settings"
HEADROOM = 1.5  # what is spent, times this, is the budget that a fix proposes
FIXES = {
    "KeyRefused": "OPENAI_API_KEY=a key that the service takes",
    "QuotaExceeded": "raise the account's limit at the service",
}
CALL_SERVICE = f"{DOCTOR} --online"


def spending_is_within_budget() -> Finding:
    """This month's cost against EMBEDDING_BUDGET_USD: WARN at 80 %, FAIL beyond it."""
    now, budget = timezone.now(), settings.EMBEDDING_BUDGET_USD
    this_month = EmbeddingUsage.objects.filter(day__gte=now.date().replace(day=1))
    spent = this_month.aggregate(total=Sum("cost_usd", default=0.0))["total"]
    if budget is None:
        return skipped(
            f"no budget is set; spent in {now:%B %Y}: ${spent:,.4f}", "EMBEDDING_BUDGET_USD=5"
        )
    detail = f"${spent:,.4f} of ${budget:,.2f} spent in {now:%B %Y}"
    if spent <= WARN_AT * budget:
        return passed(detail)
    report = warning if spent <= budget else failed
    return report(
        f"{detail}; EMBEDDINGS=none stops all spending",
        f"EMBEDDING_BUDGET_USD={max(spent * HEADROOM, 0.01):.2f}",
    )


def usage_is_tracked() -> Finding:
    """Usage by day, model and user: both tables, and whether this role may write the second."""
    recent = EmbeddingUsage.objects.filter(day__gte=timezone.now().date() - timedelta(days=1))
    totals = recent.aggregate(tokens=Sum("tokens", default=0), usd=Sum("cost_usd", default=0.0))
    if not usage.has_table():
        return warning("usage by user is not counted", MIGRATE, GRANT_ROLES)
    return passed(f"since yesterday (UTC): {totals['tokens']:,} tokens, ${totals['usd']:,.4f}")


def calls_succeed() -> Finding:
    """Calls of today and yesterday. WARN if the last day with calls has no successful one."""
    # Usage is stored by day: the last 24 hours are in today and yesterday.
    recent = EmbeddingUsage.objects.filter(day__gte=timezone.now().date() - timedelta(days=1))
    calls = _calls_by_outcome(recent)
    totals = recent.aggregate(tokens=Sum("tokens", default=0), usd=Sum("cost_usd", default=0.0))
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in calls.items()) or "none"
    detail = f"calls since yesterday (UTC): {counts}; {totals['tokens']:,} tokens, "
    detail += f"${totals['usd']:,.4f}"
    last_day = _calls_by_outcome(recent.filter(day=recent.aggregate(day=Max("day"))["day"]))
    if not last_day or last_day.get(usage.OK):
        return passed(detail)
    reason = max(last_day, key=lambda outcome: last_day[outcome])
    fixes = [FIXES[reason], CALL_SERVICE] if reason in FIXES else [CALL_SERVICE]
    return warning(f"no call has succeeded on the last day with calls; {detail}", *fixes)


def _calls_by_outcome(rows: QuerySet[EmbeddingUsage]) -> dict[str, int]:
    return dict(rows.order_by("outcome").values_list("outcome").annotate(Sum("calls")))


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


def checks() -> list[Check]:
    return [
        Check("criterion.7", spending_is_within_budget),
        Check("checklist.7", calls_succeed),
        Check("checklist.11", usage_is_tracked),
        Check("embedding.online", service_answers, option="online", in_transaction=False),
    ]
