"""The admin's page on memory: progress, indexes, cost, recall over time, the doctor's last run."""

from collections import Counter
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.utils import timezone

from chat.plots import Plot, bars, points
from retrieval import db, overview
from retrieval.doctor import last_run
from retrieval.doctor.examine import examine_all
from retrieval.models import DoctorRun
from retrieval.overview import Overview

SEVERITY = ("FAIL", "WARN", "SKIP", "PASS")
LOWEST_RECALL = 0.9  # where the scale begins: below it recall is broken, and the doctor says so


def memory_overview(request: HttpRequest) -> HttpResponseBase:
    """For staff. A superuser sees the doctor's last run too, and runs it by POST: up to a minute.

    Raises PermissionDenied for another's POST.
    """
    user: Any = request.user
    if request.method == "POST" and not user.is_superuser:
        raise PermissionDenied
    context = admin.site.each_context(request) | {"title": "Memory"}
    try:
        state = overview.collect()
    except db.NoMemory:
        return TemplateResponse(request, "admin/memory_overview.html", context)
    context |= {"state": state, "costs": cost_plot(state), "plots": recall_plots(state)}
    if user.is_superuser:
        context |= doctor(_run(request))
    return TemplateResponse(request, "admin/memory_overview.html", context)


def _run(request: HttpRequest) -> DoctorRun | None:
    user: Any = request.user
    if request.method == "POST":
        return last_run.keep(examine_all(set()), who=user.get_username())
    return last_run.last()


def doctor(run: DoctorRun | None) -> dict[str, Any]:
    """The run, how many checks ended how, and its findings, the worst first."""
    findings = run.findings if run else []
    counts = Counter(finding["status"] for finding in findings)
    return {
        "run": run,
        "counts": [(status, counts[status]) for status in SEVERITY],
        "findings": sorted(findings, key=lambda finding: SEVERITY.index(finding["status"])),
    }


def cost_plot(state: Overview) -> Plot | None:
    """What each of the last days cost; None if that is nothing."""
    amounts = [cost.usd for cost in state.costs]
    if not any(amounts):
        return None
    labels = [f"{cost.day:%d %b}: ${cost.usd:.4f}" for cost in state.costs]
    return Plot(
        title=f"Cost of embeddings by day, the last {len(amounts)} days",
        top=f"${max(amounts):.4f}",
        bottom="$0",
        first=f"{state.costs[0].day:%d %b %Y}",
        last=f"{state.costs[-1].day:%d %b %Y}",
        bars=bars(amounts, labels),
    )


def recall_plots(state: Overview) -> list[Plot]:
    """The plots of recall over time; none before two runs of ``measure_recall``."""
    runs = state.measurements
    if len(runs) < 2:
        return []
    first, latest = (
        f"{timezone.localtime(run.measured_at):%d %b %Y}" for run in (runs[0], runs[-1])
    )
    slowest = max(run.p95_ms for run in runs)
    return [
        Plot(
            title=f"recall@5, now {runs[-1].recall:.4f}",
            top="1.0",
            bottom=str(LOWEST_RECALL),
            first=first,
            last=latest,
            points=points([run.recall for run in runs], lowest=LOWEST_RECALL, highest=1.0),
        ),
        Plot(
            title=f"95 of 100 recalls take less than, now {runs[-1].p95_ms:.0f} ms",
            top=f"{slowest:.0f} ms",
            bottom="0 ms",
            first=first,
            last=latest,
            points=points([run.p95_ms for run in runs], lowest=0.0),
        ),
    ]
