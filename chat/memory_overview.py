"""The admin's page on memory: progress, indexes, cost, recall over time, the doctor's checks."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse

from retrieval import db, overview
from retrieval.doctor.examine import examine_all
from retrieval.overview import Overview

WIDTH, HEIGHT = 600, 80  # of a plot, in its own units


def memory_overview(request: HttpRequest) -> HttpResponseBase:
    """For staff. A superuser's POST runs the doctor as well: it only reads, for up to a minute."""
    context = admin.site.each_context(request) | {"title": "Memory"}
    try:
        state = overview.collect()
    except db.NoMemory:
        return TemplateResponse(request, "admin/memory_overview.html", context)
    context |= {"state": state, "plots": plots(state)}
    user: Any = request.user
    if request.method == "POST" and user.is_superuser:
        context["findings"] = list(examine_all(set()))
    return TemplateResponse(request, "admin/memory_overview.html", context)


def plots(state: Overview) -> list[dict[str, Any]]:
    """The plots of recall over time; none before two runs of ``measure_recall``."""
    runs = state.measurements
    if len(runs) < 2:
        return []
    latest = runs[-1]
    return [
        {
            "title": f"recall@5, now {latest.recall:.4f} (the scale begins at 0.9)",
            "points": points([run.recall for run in runs], lowest=0.9, highest=1.0),
        },
        {
            "title": f"95 of 100 recalls within, in ms; now {latest.p95_ms:.0f}",
            "points": points([run.p95_ms for run in runs], lowest=0.0),
        },
    ]


def points(values: Sequence[float], *, lowest: float, highest: float | None = None) -> str:
    """The points of an SVG polyline in a box of WIDTH by HEIGHT; others stay at its edge."""
    top = highest if highest is not None else max(*values, lowest + 1e-9)
    step = WIDTH / (len(values) - 1)
    heights = (min(max((value - lowest) / (top - lowest), 0.0), 1.0) for value in values)
    return " ".join(
        f"{place * step:.1f},{HEIGHT * (1 - height):.1f}" for place, height in enumerate(heights)
    )
