"""The figures of GET /metrics that processes count: docs/observability.md

``enable`` creates them. Before, each function here returns at once, and prometheus_client is not
imported. No label holds a user, an address or a text: each has a few fixed values.
"""

from functools import partial
from typing import TYPE_CHECKING

from pooled_postgres.base import wait_listeners

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

OUTCOMES = ("complete", "interrupted", "failed")  # the status of an answer that has ended
MODES = ("off", "lexical", "hybrid")  # of a recall, as the API names them
# Codes of the API, then errors that are only logged: retrieval/log_counts.py
REASONS = (
    "llm_error", "llm_timeout", "llm_not_configured", "interrupted",
    "embedding", "recall", "database_unavailable", "internal",
)  # fmt: skip
# Seconds. A first token and a recall have the limits LLM_TIMEOUT (60) and RAG_TIMEOUT (3), a
# connection 5: verse/settings.py.
TOKEN_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
RECALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 3)
POOL_BUCKETS = (0.0001, 0.001, 0.01, 0.1, 0.5, 1, 2.5, 5)


class Metrics:
    """The metrics of this process; each exists, with every label, from the start."""

    def __init__(self, registry: "CollectorRegistry") -> None:
        from prometheus_client import Counter, Gauge, Histogram

        counter = partial(Counter, registry=registry)
        histogram = partial(Histogram, registry=registry)
        turns = counter("verse_turns", "Answers that have ended, by their status.", ["outcome"])
        self.turns = {outcome: turns.labels(outcome) for outcome in OUTCOMES}
        failures = counter("verse_failures", "Failures, by what failed.", ["reason"])
        self.failures = {reason: failures.labels(reason) for reason in REASONS}
        self.running = Gauge(
            "verse_running_answers",
            "Answers that this server generates now.",
            multiprocess_mode="livesum",  # without those of processes that have died
            registry=registry,
        )
        self.first_token = histogram(
            "verse_first_token_seconds",
            "From the request to the first piece of its answer.",
            buckets=TOKEN_BUCKETS,
        )
        recall = histogram(
            "verse_recall_seconds",
            "Recalls in the database, for answers and searches.",
            ["mode"],
            buckets=RECALL_BUCKETS,
        )
        self.recall = {mode: recall.labels(mode) for mode in MODES}
        self.pool_wait = histogram(
            "verse_pool_wait_seconds",
            "Waits for a connection of the process's pool.",
            buckets=POOL_BUCKETS,
        )
        self.calls = counter("verse_embedding_calls", "Requests to the embedding service.")
        self.tokens = counter("verse_embedding_tokens", "Tokens, as the service counts them.")
        self.dollars = counter("verse_embedding_dollars", "US dollars for these tokens.")


class _Process:
    """The metrics of this process; None: nothing is counted."""

    metrics: Metrics | None = None


_process = _Process()


def enable(registry: "CollectorRegistry") -> None:
    """Create the metrics in the registry, and count from now on. Once in a process."""
    _process.metrics = Metrics(registry)
    wait_listeners.add(waited_for_connection)


def disable() -> None:
    """For tests: count nothing."""
    _process.metrics = None
    wait_listeners.discard(waited_for_connection)


def answer_started() -> None:
    if metrics := _process.metrics:
        metrics.running.inc()


def answer_ended(outcome: str | None, reason: str | None = None) -> None:
    """``outcome`` is None for an answer that another process ends, or that was refused."""
    if metrics := _process.metrics:
        metrics.running.dec()
        if outcome:
            turns_ended(outcome, reason)


def turns_ended(outcome: str, reason: str | None = None, *, count: int = 1) -> None:
    """Count turns, and why they failed if they did."""
    if (metrics := _process.metrics) and count:
        metrics.turns[outcome].inc(count)
        if reason:
            failed(reason, count=count)


def failed(reason: str, *, count: int = 1) -> None:
    """Count a failure; a reason that is not one of REASONS is an internal one."""
    if metrics := _process.metrics:
        metrics.failures.get(reason, metrics.failures["internal"]).inc(count)


def first_token_after(seconds: float) -> None:
    if metrics := _process.metrics:
        metrics.first_token.observe(seconds)


def recalled_in(seconds: float, *, mode: str) -> None:
    if metrics := _process.metrics:
        metrics.recall[mode].observe(seconds)


def waited_for_connection(seconds: float) -> None:
    if metrics := _process.metrics:
        metrics.pool_wait.observe(seconds)


def embedding_request_sent() -> None:
    if metrics := _process.metrics:
        metrics.calls.inc()


def embedding_tokens_used(tokens: int, *, cost_usd: float) -> None:
    if metrics := _process.metrics:
        metrics.tokens.inc(tokens)
        metrics.dollars.inc(cost_usd)
