"""What embedding has cost in the last days, by day, model and user: for ``rag_status``."""

from collections import defaultdict
from datetime import date, timedelta
from typing import Any

from django.db.models import F, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from retrieval import db
from retrieval.embeddings import usage
from retrieval.models import EmbeddingUsage, UserEmbeddingUsage

DAYS = 7  # today (UTC) and the six days before
MAX_USERS = 20  # of a day and model, those with the most tokens
Key = tuple[date, str]  # day and model


def collect() -> list[dict[str, Any]]:
    """``{"day", "model", "tokens", "cost_usd", "users"}`` each, the latest day first.

    ``users``: ``{"user_id", "tokens", "cost_usd"}`` each, at most MAX_USERS, and one with the
    user_id None for the rest: other users, and what was counted without a user. At most three
    statements. Raises NoMemory.
    """
    first_day = timezone.now().date() - timedelta(days=DAYS - 1)
    with db.require_memory():
        totals = list(_totals(first_day))
    users = _users(first_day) if usage.has_table() else {}
    return [
        {
            "day": day.isoformat(),
            "model": model,
            "tokens": tokens,
            "cost_usd": cost_usd,
            "users": _with_rest(users.get((day, model), []), tokens, cost_usd),
        }
        for day, model, tokens, cost_usd in totals
    ]


def lines(report: list[dict[str, Any]]) -> list[str]:
    """The report as text: a line for each day and model, and one for each of its users."""
    head = f"{'tokens (UTC days)':{WIDTH}}  {'tokens':>13}  {'US dollars':>12}"
    return [head, *(line for row in report for line in _lines_of(row))]


WIDTH = 40


def _lines_of(row: dict[str, Any]) -> list[str]:
    total = _line(f"{row['day']} {row['model']}", row)
    return [total, *(_line(f"  {_user(user['user_id'])}", user) for user in row["users"])]


def _line(name: str, row: dict[str, Any]) -> str:
    return f"{name:{WIDTH}}  {row['tokens']:>13,}  {row['cost_usd']:>12,.6f}"


def _user(user_id: int | None) -> str:
    return "others, and not known" if user_id is None else f"user {user_id}"


def _totals(first_day: date) -> Any:
    paid = EmbeddingUsage.objects.filter(day__gte=first_day, outcome=usage.OK)
    return paid.order_by("-day", "model").values_list("day", "model", "tokens", "cost_usd")


def _users(first_day: date) -> dict[Key, list[dict[str, Any]]]:
    place = Window(RowNumber(), partition_by=["day", "model"], order_by=["-tokens", "user_id"])
    rows = UserEmbeddingUsage.objects.filter(day__gte=first_day).annotate(place=place)
    users: dict[Key, list[dict[str, Any]]] = defaultdict(list)
    for row in (
        rows.filter(place__lte=MAX_USERS)
        .order_by("day", "model", "place")
        .values("day", "model", "tokens", "cost_usd", owner=F("user_id"))
    ):
        numbers = {"tokens": row["tokens"], "cost_usd": row["cost_usd"]}
        users[row["day"], row["model"]].append({"user_id": row["owner"], **numbers})
    return users


def _with_rest(users: list[dict[str, Any]], tokens: int, cost_usd: float) -> list[dict[str, Any]]:
    rest = tokens - sum(user["tokens"] for user in users)
    if rest <= 0:
        return users
    rest_usd = max(cost_usd - sum(user["cost_usd"] for user in users), 0.0)
    return [*users, {"user_id": None, "tokens": rest, "cost_usd": rest_usd}]
