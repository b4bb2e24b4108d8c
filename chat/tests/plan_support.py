"""Shared by tests of plans: recall's statement as EXPLAIN sees it, and how much it read."""

import json
import re
from typing import Any

import numpy as np
from django.contrib.auth.models import User
from django.db import connection
from numpy.typing import NDArray
from psycopg import sql

from retrieval.recall.candidates import Scope, candidates_statement, parameters

MESSAGES = {"standalone_chat_messages", "chat_messages"}
MEMORIES = {"message_memories"}


def plan_of(
    user: User,
    question: str,
    *,
    embedding: NDArray[np.float32] | None,
    model: str,
    plans: str,
    run: bool = True,
) -> dict[str, Any]:
    """EXPLAIN's output for a recall, by ``generic`` or ``custom`` plans; with rows read if run."""
    scope = Scope(user.pk)
    statement = candidates_statement(tuple(scope.filters), by_meaning=embedding is not None)
    params = parameters(question, scope, embedding=embedding, model=model)
    text, values = with_numbered_parameters(statement.as_string(), params)
    options = "ANALYZE, BUFFERS, FORMAT JSON" if run else "FORMAT JSON"
    with connection.cursor() as cursor:
        cursor.execute(f"SET plan_cache_mode = force_{plans}_plan")
        cursor.execute(f"PREPARE recall AS {text}")
        cursor.execute(f"EXPLAIN ({options}) EXECUTE recall ({', '.join(values)})")
        (plan,) = cursor.fetchone()
        cursor.execute("DEALLOCATE recall; RESET plan_cache_mode")
    return dict((json.loads(plan) if isinstance(plan, str) else plan)[0])


def with_numbered_parameters(statement: str, params: dict[str, Any]) -> tuple[str, list[str]]:
    """The statement with $1, $2, …, and the value of each as SQL."""
    names: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        names.append(match[1]) if match[1] not in names else None
        return f"${names.index(match[1]) + 1}"

    text = re.sub(r"%\((\w+)\)[sb]", numbered, statement)
    return text, [literal(params[name]) for name in names]


def literal(value: Any) -> str:
    """The value as PostgreSQL reads it."""
    if isinstance(value, np.ndarray):
        return f"'[{','.join(map(str, value))}]'"
    if isinstance(value, list):
        return "'{" + ",".join(map(str, value)) + "}'"
    return sql.Literal(value).as_string(None)


def rows_read(node: dict[str, Any], tables: set[str]) -> int:
    """How many rows of these tables were fetched, with those that a filter then removed."""
    own = 0
    if node.get("Relation Name") in tables and node["Node Type"] != "Index Only Scan":
        own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return int(own) + sum(rows_read(child, tables) for child in node.get("Plans", []))
