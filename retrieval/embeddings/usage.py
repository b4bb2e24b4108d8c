"""What embedding calls have cost: tallied in the process, added to the day's rows every few seconds."""

import threading
from collections import Counter
from dataclasses import dataclass, field

from retrieval import db
from retrieval.embeddings.cost import cost_usd

OK = "ok"
ADD = """
    INSERT INTO embedding_usage AS u (day, model, outcome, calls, texts, tokens, cost_usd)
    VALUES ((now() AT TIME ZONE 'UTC')::date, %(model)s, %(outcome)s, %(calls)s, %(texts)s, %(tokens)s, %(cost_usd)s)
    ON CONFLICT (day, model, outcome) DO UPDATE SET calls = u.calls + excluded.calls,
        texts = u.texts + excluded.texts, tokens = u.tokens + excluded.tokens,
        cost_usd = u.cost_usd + excluded.cost_usd
"""


@dataclass
class _Tally:
    lock: threading.Lock = field(default_factory=threading.Lock)
    counts: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)


_tally = _Tally()


def record(model: str, outcome: str, *, texts: int, tokens: int) -> None:
    """Count one call: ``outcome`` is OK, or the name of its EmbeddingError, which costs nothing. No query."""
    paid = tokens if outcome == OK else 0
    with _tally.lock:
        counts = _tally.counts.setdefault((model, outcome), Counter())
        counts.update(calls=1, texts=texts, tokens=paid)


def flush() -> None:
    """Add what was counted to the day's rows, one statement a kind; without memory's tables it is dropped.

    What a process has counted since the last time is lost when it is killed.
    """
    with _tally.lock:
        counted, _tally.counts = _tally.counts, {}
    for (model, outcome), counts in counted.items():
        numbers = {name: counts[name] for name in ("calls", "texts", "tokens")}
        params = {"model": model, "outcome": outcome, "cost_usd": cost_usd(counts["tokens"])}
        try:
            db.execute(ADD, numbers | params)
        except db.NoMemory:
            return
