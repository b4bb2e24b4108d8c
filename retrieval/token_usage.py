"""The tokens of turns, by user and day: for the daily limits and ``GET /api/usage/``.

The statement that saves an answer or a vector counts its tokens too, so a turn makes no further
query. A day is a UTC day by the database's clock: clocks of machines do not matter. On a schema
before chat 0017_token_usage nothing is counted.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth import get_user_model
from django.db.models import Exists, OuterRef
from psycopg import sql

from retrieval import queries
from retrieval.later_table import LaterTable, MissingTableError
from retrieval.token_models import UserTokenUsage

PARTS = 16  # rows of a day's total: two turns that end at once seldom wait for each other
KEPT_DAYS = 400  # a year, and the month before
# Two members of a WITH clause. They lock the user's row of the day, then one of the day's total, to
# the end of the transaction: always in this order, so no two turns can deadlock.
COUNTED = sql.SQL("""
    of_user AS (
        INSERT INTO user_token_usage AS u (user_id, day, prompt_tokens, completion_tokens,
            cached_tokens, embedding_tokens)
        VALUES (%(counted_user)s, (now() AT TIME ZONE 'UTC')::date, %(prompt_tokens)s,
            %(completion_tokens)s, %(cached_tokens)s, %(embedding_tokens)s)
        ON CONFLICT (user_id, day) DO UPDATE SET
            prompt_tokens = u.prompt_tokens + excluded.prompt_tokens,
            completion_tokens = u.completion_tokens + excluded.completion_tokens,
            cached_tokens = u.cached_tokens + excluded.cached_tokens,
            embedding_tokens = u.embedding_tokens + excluded.embedding_tokens
        RETURNING u.day
    ), of_all AS (
        INSERT INTO token_usage AS t (day, part, tokens)
        SELECT day, %(part)s, %(tokens)s FROM of_user
        ON CONFLICT (day, part) DO UPDATE SET tokens = t.tokens + excluded.tokens
    )
""")
ADD = sql.SQL("WITH {counted} SELECT").format(counted=COUNTED)
# Locks: nothing. 1 + PARTS rows, by their keys.
USED_TODAY = """
    SELECT coalesce((SELECT u.prompt_tokens + u.completion_tokens + u.embedding_tokens
            FROM user_token_usage u WHERE u.user_id = %(user)s AND u.day = today), 0)::bigint,
        coalesce((SELECT sum(t.tokens) FROM token_usage t WHERE t.day = today), 0)::bigint,
        extract(epoch FROM (today + 1)::timestamp AT TIME ZONE 'UTC' - now())::float8
    FROM (SELECT (now() AT TIME ZONE 'UTC')::date AS today) clock
"""
# Locks: nothing. At most 31 rows, by their key.
REPORT = """
    SELECT coalesce(sum(u.prompt_tokens) FILTER (WHERE is_today), 0)::bigint,
        coalesce(sum(u.completion_tokens) FILTER (WHERE is_today), 0)::bigint,
        coalesce(sum(u.cached_tokens) FILTER (WHERE is_today), 0)::bigint,
        coalesce(sum(u.embedding_tokens) FILTER (WHERE is_today), 0)::bigint,
        coalesce(sum(u.prompt_tokens), 0)::bigint, coalesce(sum(u.completion_tokens), 0)::bigint,
        coalesce(sum(u.cached_tokens), 0)::bigint, coalesce(sum(u.embedding_tokens), 0)::bigint
    FROM (SELECT (now() AT TIME ZONE 'UTC')::date AS today) clock
    JOIN user_token_usage u ON u.user_id = %(user)s
        AND u.day BETWEEN date_trunc('month', today::timestamp)::date AND today
    CROSS JOIN LATERAL (SELECT u.day = today AS is_today) day
"""
RESETS_AT = "SELECT ((now() AT TIME ZONE 'UTC')::date + 1)::timestamp AT TIME ZONE 'UTC'"
# Locks the rows that it deletes.
PURGE_OLD = "DELETE FROM user_token_usage WHERE day < (now() AT TIME ZONE 'UTC')::date - %(days)s"

_table = LaterTable(UserTokenUsage._meta.db_table)


@dataclass(frozen=True)
class Tokens:
    """Tokens of one turn, or of many. The cached ones are part of the prompt's."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    embedding_tokens: int = 0

    @property
    def total(self) -> int:
        """What the daily limits count."""
        return self.prompt_tokens + self.completion_tokens + self.embedding_tokens

    def parameters(self, user_id: int) -> dict[str, int]:
        """Of COUNTED."""
        place = {"counted_user": user_id, "part": user_id % PARTS, "tokens": self.total}
        return vars(self) | place

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(**{name: number + vars(other)[name] for name, number in vars(self).items()})


@dataclass(frozen=True)
class UsedToday:
    """Tokens of a user's turns and of everyone's today, and when the day ends."""

    by_user: int
    by_all: int
    seconds_left: float


@dataclass(frozen=True)
class UsedTokens:
    """A user's tokens today and this month (UTC)."""

    day: Tokens
    month: Tokens
    resets_at: datetime


def has_table() -> bool:
    """Whether turns are counted. At most one query a minute."""
    return _table.may_write()


def forget_table() -> None:
    """A statement has failed for want of the tables: look again at the next turn."""
    _table.forget()


def add(user_id: int, tokens: Tokens) -> None:
    """Count tokens that no other statement counts. One statement."""
    if tokens.total:
        with suppress(MissingTableError), _table.required():
            queries.execute(ADD, tokens.parameters(user_id))


def used_today(user_id: int) -> UsedToday | None:
    """One statement, in a savepoint; None on a schema that does not count."""
    with suppress(MissingTableError), _table.required():
        return UsedToday(*queries.row(USED_TODAY, {"user": user_id}))
    return None


def report(user_id: int) -> UsedTokens:
    """Two statements. All is zero on a schema that does not count."""
    resets_at = queries.value(RESETS_AT)
    with suppress(MissingTableError), _table.required():
        numbers = queries.row(REPORT, {"user": user_id})
        return UsedTokens(Tokens(*numbers[:4]), Tokens(*numbers[4:]), resets_at)
    return UsedTokens(Tokens(), Tokens(), resets_at)


def purge() -> None:
    """Delete days older than KEPT_DAYS, and what is counted of deleted users. Two statements."""
    if not has_table():
        return
    queries.execute(PURGE_OLD, {"days": KEPT_DAYS})
    owner = get_user_model()._default_manager.filter(pk=OuterRef("user_id"))
    UserTokenUsage.objects.filter(~Exists(owner)).delete()
