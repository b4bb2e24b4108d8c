"""What embedding calls cost: counted in the process, added to the day's rows every few seconds."""

import threading
from collections import Counter

from retrieval import db
from retrieval.embeddings.cost import cost_usd
from retrieval.runtime import on_reset

OK = "ok"
# Locks the day's row of this model and outcome.
ADD = """
    INSERT INTO embedding_usage AS u (day, model, outcome, calls, texts, tokens, cost_usd)
    VALUES ((now() AT TIME ZONE 'UTC')::date,
        %(model)s, %(outcome)s, %(calls)s, %(texts)s, %(tokens)s, %(cost_usd)s)
    ON CONFLICT (day, model, outcome) DO UPDATE SET calls = u.calls + excluded.calls,
        texts = u.texts + excluded.texts, tokens = u.tokens + excluded.tokens,
        cost_usd = u.cost_usd + excluded.cost_usd
"""

_lock = threading.Lock()
_counts: dict[tuple[str, str], Counter[str]] = {}  # by model and outcome
on_reset(_counts.clear)


def record(model: str, outcome: str, *, texts: int, tokens: int) -> None:
    """Count one call, without a query.

    ``outcome`` is OK, or the name of the EmbeddingError that was raised: such a call costs nothing.
    """
    paid_tokens = tokens if outcome == OK else 0
    with _lock:
        counts = _counts.setdefault((model, outcome), Counter())
        counts.update(calls=1, texts=texts, tokens=paid_tokens)


def flush() -> None:
    """Add the counts to the day's rows, one statement for each model and outcome.

    A killed process loses what it counted since the last flush; without memory's tables the
    counts are dropped.
    """
    with _lock:
        counted = dict(_counts)
        _counts.clear()
    for (model, outcome), counts in counted.items():
        numbers = {name: counts[name] for name in ("calls", "texts", "tokens")}
        params = {"model": model, "outcome": outcome, "cost_usd": cost_usd(counts["tokens"])}
        try:
            db.execute(ADD, numbers | params)
        except db.NoMemory:
            return
