"""What recall reads does not grow with the user: seen in the plans of a user of 200 messages and of one of 20,000."""

import json
import re
from itertools import product
from typing import Any

import numpy as np
import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection

from chat.models import StandaloneChat
from retrieval import recall, sql
from retrieval.recall import Scope

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
FEW, MANY, OTHERS = 200, 20_000, 30_000
MESSAGES = {"standalone_chat_messages", "chat_messages"}
# A word in every second message, one in every tenth, one in every hundredth, and one of its own.
SAY = """
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    SELECT %s, %s, CASE n %% 2 WHEN 0 THEN 'user' ELSE 'assistant' END,
        'Bread ' || CASE n %% 2 WHEN 0 THEN 'river ' ELSE '' END || CASE n %% 10 WHEN 0 THEN 'piano ' ELSE '' END
            || CASE n %% 100 WHEN 0 THEN 'attic ' ELSE '' END || md5(n::text),
        now() - n * interval '1 minute'
    FROM generate_series(1, %s) n
"""
BITS = """
    UPDATE message_memories SET model = (SELECT id FROM embedding_models WHERE current),
        bits = (SELECT string_agg(lpad(('x' || md5(id::text || k))::bit(128)::text, 128), '')
            FROM generate_series(1, 12) k)::bit(1536)
    WHERE user_id IN (%s, %s)
"""


@pytest.fixture
def people(alice: User, bob: User) -> tuple[User, User]:
    """Alice, who has said little, and Bob, who has said much; the signs of vectors are enough here."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO embedding_models (name, current) VALUES ('a model', true)")
        for user, rows in ((alice, FEW), (bob, MANY), (User.objects.create(username="carol"), OTHERS)):
            chat = StandaloneChat.objects.create(user=user)
            cursor.execute(SAY, [user.pk, chat.pk, rows])
        cursor.execute(BITS, [alice.pk, bob.pk])
        cursor.execute("VACUUM (ANALYZE) message_memories, standalone_chat_messages")
    return alice, bob


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


def plan_of(user: User, *, by_meaning: bool, generic: bool) -> dict[str, Any]:
    """What the recall of a question did, as EXPLAIN tells."""
    shown, filters = recall._shown(Scope(user.pk))
    params = filters | {
        "user": user.pk,
        "question": "Is there a river by the attic with the piano?",
        "cap": recall.SPREADING_CAP,
        "share": recall.SPREADING_SHARE,
        "word_seeds": recall.WORD_SEEDS,
        "codes": recall.CODES,
        "meaning_seeds": recall.MEANING_SEEDS,
        "embedding": np.ones(1536, dtype=np.float32),
        "model": "a model",
    }
    statement = recall._statement(shown, by_meaning=by_meaning).replace("{vector}", sql.vector_schema())
    text, values = prepared(statement, params)
    mode = "force_generic_plan" if generic else "force_custom_plan"
    with connection.cursor() as cursor:
        cursor.execute(f"SET plan_cache_mode = {mode}")
        cursor.execute(f"PREPARE looked AS {text}")
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE looked ({', '.join(values)})")
        (found,) = cursor.fetchone()
        cursor.execute("DEALLOCATE looked; RESET plan_cache_mode")
    return dict((json.loads(found) if isinstance(found, str) else found)[0])


def rows_read(node: dict[str, Any], tables: set[str]) -> int:
    """How many rows of these tables were fetched, those that a filter then left out included."""
    own = 0
    if node.get("Relation Name") in tables and node["Node Type"] != "Index Only Scan":
        own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return int(own) + sum(rows_read(one, tables) for one in node.get("Plans", []))


def test_what_is_read_does_not_grow_with_the_user(people: tuple[User, User]) -> None:
    for by_meaning, generic in product((False, True), (False, True)):
        few, many = (plan_of(user, by_meaning=by_meaning, generic=generic) for user in people)
        case = f"{by_meaning=} {generic=}"
        for plan in (few, many):
            assert rows_read(plan["Plan"], MESSAGES) <= 2 * 7 * (recall.WORD_SEEDS + recall.CODES), case
        # A term's postings are read up to the cap; each seed and its turns once.
        terms = 3
        most = terms * (recall.SPREADING_CAP + 1) + 3 * 7 * (recall.WORD_SEEDS_ALONE + recall.CODES)
        assert rows_read(many["Plan"], {"message_memories"}) <= most, case
        # A hundred times the messages: the user's part of the index of bits is read, 0.25 kB a message.
        assert many["Plan"]["Shared Hit Blocks"] <= few["Plan"]["Shared Hit Blocks"] + 40 * MANY // 1000 + 9_000, case
