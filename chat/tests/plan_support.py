"""What the tests of recall's plans share: the statement as EXPLAIN sees it, and what it read."""

import json
import re
from typing import Any

import numpy as np
import psycopg
from django.contrib.auth.models import User
from django.db import connection
from numpy.typing import NDArray

from retrieval import db
from retrieval.recall import candidates
from retrieval.recall.candidates import Scope

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
    """How EXPLAIN says that the question is recalled, by ``generic`` or ``custom`` plans; what is read, if run."""
    text, values = prepared(*statement_of(user, question, embedding, model))
    options = "ANALYZE, BUFFERS, FORMAT JSON" if run else "FORMAT JSON"
    with connection.cursor() as cursor:
        cursor.execute(f"SET plan_cache_mode = force_{plans}_plan")
        cursor.execute(f"PREPARE looked AS {text}")
        cursor.execute(f"EXPLAIN ({options}) EXECUTE looked ({', '.join(values)})")
        (found,) = cursor.fetchone()
        cursor.execute("DEALLOCATE looked; RESET plan_cache_mode")
    return dict((json.loads(found) if isinstance(found, str) else found)[0])


def statement_of(
    user: User, question: str, embedding: NDArray[np.float32] | None, model: str
) -> tuple[str, dict[str, Any]]:
    """Recall's statement and parameters, as ``recall`` makes them."""
    shown, filters = candidates._shown(Scope(user.pk))
    params = {
        "user": user.pk,
        "question": question,
        "cap": candidates.SPREADING_CAP,
        "share": candidates.SPREADING_SHARE,
        "word_seeds": candidates.WORD_SEEDS_ALONE if embedding is None else candidates.WORD_SEEDS,
        "codes": candidates.CODES,
        "meaning_seeds": candidates.MEANING_SEEDS,
        "embedding": embedding,
        "model": model,
    }
    statement = candidates._statement(shown, by_meaning=embedding is not None)
    return statement.replace("{vector}", db.vector_schema()), params | filters


def prepared(statement: str, params: dict[str, Any]) -> tuple[str, list[str]]:
    """The statement with numbered parameters, and each one's value as SQL."""
    names: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        names.append(match[1]) if match[1] not in names else None
        return f"${names.index(match[1]) + 1}"

    text = re.sub(r"%\((\w+)\)[sb]", numbered, statement)
    return text, [literal(params[name]) for name in names]


def literal(value: Any) -> str:
    """As PostgreSQL reads it."""
    if isinstance(value, np.ndarray):
        return f"'[{','.join(map(str, value))}]'"
    if isinstance(value, list):
        return "'{" + ",".join(map(str, value)) + "}'"
    return psycopg.sql.Literal(value).as_string(None)


def rows_read(node: dict[str, Any], tables: set[str]) -> int:
    """How many rows of these tables were fetched, those that a filter then left out included."""
    own = 0
    if node.get("Relation Name") in tables and node["Node Type"] != "Index Only Scan":
        own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return int(own) + sum(rows_read(one, tables) for one in node.get("Plans", []))
