"""What ``rag_rollout`` reports: the state, the fuse, the figures of the last hour and day."""

from dataclasses import asdict
from typing import Any

from retrieval.rollout import recall_times, state


def collect() -> dict[str, Any]:
    """``{"state", "fuse": {"ms", "errors", "blown_at"}, "hour", "day"}``.

    ``hour`` and ``day``: ``{"count", "errors", "p50_ms", "p95_ms", "added_tokens"}``. Four
    statements at most.
    """
    current = state.read()
    blown_at = current.blown_at and current.blown_at.isoformat()
    return {
        "state": current.name,
        "fuse": {"ms": current.fuse_ms, "errors": current.fuse_errors, "blown_at": blown_at},
        "hour": asdict(recall_times.figures(recall_times.HOUR)),
        "day": asdict(recall_times.figures(recall_times.DAY)),
    }


def lines(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    fuse = report["fuse"]
    limits = [f"95 of 100 recalls over {fuse['ms']} ms"] if fuse["ms"] is not None else []
    if fuse["errors"] is not None:
        limits.append(f"more than {fuse['errors']} errors a minute")
    blown = f"; blown at {fuse['blown_at']}" if fuse["blown_at"] else ""
    head = f"{'recalls':10}  {'count':>9}  {'errors':>9}  {'p50, ms':>9}  {'p95, ms':>9}"
    return [
        f"Rollout: {report['state']}",
        f"Fuse: {' or '.join(limits) or 'none'}{blown}",
        f"{head}  {'tokens added':>13}",
        _line("last hour", report["hour"]),
        _line("last day", report["day"]),
    ]


def _line(name: str, figures: dict[str, Any]) -> str:
    times = (figures["p50_ms"], figures["p95_ms"])
    shown = "  ".join(f"{'–' if time is None else f'{time:.1f}':>9}" for time in times)
    tokens = figures["added_tokens"]
    return f"{name:10}  {figures['count']:>9,}  {figures['errors']:>9,}  {shown}  {tokens:>13,}"
