"""What embedding calls cost: counted in the process, added to the day's rows every few seconds.

The table embedding_usage has them by model and outcome, user_embedding_usage by model and user.
"""

import threading
from collections import Counter
from collections.abc import Sequence

from retrieval import db
from retrieval.embeddings.cost import cost_usd
from retrieval.later_table import LaterTable
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
# Locks the day's rows of these users, in their order: two processes cannot deadlock.
ADD_BY_USER = """
    INSERT INTO user_embedding_usage AS u (user_id, day, model, texts, tokens, cost_usd)
    SELECT v.user_id, (now() AT TIME ZONE 'UTC')::date, %(model)s, v.texts, v.tokens, v.cost_usd
    FROM unnest(
        %(users)s::bigint[], %(texts)s::bigint[], %(tokens)s::bigint[], %(costs)s::float8[]
    ) v (user_id, texts, tokens, cost_usd)
    ORDER BY v.user_id
    ON CONFLICT (user_id, day, model) DO UPDATE SET texts = u.texts + excluded.texts,
        tokens = u.tokens + excluded.tokens, cost_usd = u.cost_usd + excluded.cost_usd
"""
_lock = threading.Lock()
_counts: dict[tuple[str, str], Counter[str]] = {}  # by model and outcome
_texts_by_user: dict[str, Counter[int]] = {}  # by model
_tokens_by_user: dict[str, Counter[int]] = {}
_user_table = LaterTable("user_embedding_usage")
for _counted in (_counts, _texts_by_user, _tokens_by_user):
    on_reset(_counted.clear)


def record(model: str, outcome: str, *, tokens: Sequence[int], users: Sequence[int | None]) -> None:
    """Count one call, without a query. ``tokens`` and ``users``: of each text.

    ``outcome`` is OK, or the name of the EmbeddingError that was raised: such a call costs nothing.
    """
    paid_tokens = sum(tokens) if outcome == OK else 0
    with _lock:
        counts = _counts.setdefault((model, outcome), Counter())
        counts.update(calls=1, texts=len(tokens), tokens=paid_tokens)
        if outcome != OK:
            return
        for user, text_tokens in zip(users, tokens, strict=True):
            if user is not None:
                _texts_by_user.setdefault(model, Counter())[user] += 1
                _tokens_by_user.setdefault(model, Counter())[user] += text_tokens


def flush() -> None:
    """Add the counts to the day's rows, one statement for each model and outcome, one by user.

    After a failure the next call adds what is left. A killed process loses what it counted since
    the last flush; without memory's tables the counts are dropped.
    """
    with _lock:
        counted, texts, tokens = dict(_counts), dict(_texts_by_user), dict(_tokens_by_user)
        for pending in (_counts, _texts_by_user, _tokens_by_user):
            pending.clear()
    try:
        _add(counted, texts, tokens)
    except db.NoMemory:
        return
    except Exception:
        with _lock:
            for key, counts in counted.items():
                _counts.setdefault(key, Counter()).update(counts)
            for model in texts:
                _texts_by_user.setdefault(model, Counter()).update(texts[model])
                _tokens_by_user.setdefault(model, Counter()).update(tokens[model])
        raise


def _add(
    counted: dict[tuple[str, str], Counter[str]],
    texts: dict[str, Counter[int]],
    tokens: dict[str, Counter[int]],
) -> None:
    """Add the counts, and remove from them what is added."""
    for model, outcome in list(counted):
        counts = counted[model, outcome]
        numbers = {name: counts[name] for name in ("calls", "texts", "tokens")}
        params = {"model": model, "outcome": outcome, "cost_usd": cost_usd(counts["tokens"])}
        db.execute(ADD, numbers | params)
        del counted[model, outcome]
    for model in list(texts):
        _add_by_user(model, texts[model], tokens[model])
        del texts[model]


def _add_by_user(model: str, texts: Counter[int], tokens: Counter[int]) -> None:
    if not has_table():
        return
    users = sorted(texts)
    params = {
        "model": model,
        "users": users,
        "texts": [texts[user] for user in users],
        "tokens": [tokens[user] for user in users],
        "costs": [cost_usd(tokens[user]) for user in users],
    }
    db.execute(ADD_BY_USER, params)


def has_table() -> bool:
    """Whether user_embedding_usage exists and this role may write it: not before 0006_usage."""
    return _user_table.may_write()
