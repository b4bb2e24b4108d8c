"""What PostgreSQL itself refuses, whether code, an import or psql writes it."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction

from chat.models import IdempotencyKey, Passage, RunningAnswer, StandaloneChat
from tests.support import ROOT, clean_environment, database_url

pytestmark = pytest.mark.django_db
FOREIGN_KEY, CHECK, UNIQUE = "23503", "23514", "23505"
KINDS = {
    "chat_messages": ("passages", "passage_id", "passage"),
    "standalone_chat_messages": ("standalone_chats", "chat_id", "chat"),
}


@dataclass
class Kind:
    """A message table, and a conversation of alice's and of bob's with a message each."""

    table: str
    parents: str
    column: str
    name: str
    alices: Any
    bobs: Any

    def run(self, sql: str, *values: Any) -> None:
        """Run a statement; names in braces are this table's. Nothing is committed."""
        with connection.cursor() as cursor:
            cursor.execute(
                sql.format(table=self.table, parents=self.parents, column=self.column), values
            )

    def refusal(self, sql: str, *values: Any) -> tuple[str | None, str | None]:
        """SQLSTATE and constraint with which the statement itself, not the commit, is refused."""
        # The end of a savepoint checks no deferred constraint: it would not be raised here.
        with pytest.raises(DatabaseError) as raised, transaction.atomic():
            self.run(sql, *values)
        error: Any = raised.value.__cause__
        return error.sqlstate, error.diag.constraint_name


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, alice: User, bob: User) -> Kind:
    """Once for each message table."""
    table: str = request.param
    conversations: list[Any] = []
    for user in (alice, bob):
        conversation: Any = (
            Passage.objects.create(user=user, reference="John 3", text="For God so loved")
            if table == "chat_messages"
            else StandaloneChat.objects.create(user=user)
        )
        conversation.messages.create(user=user, role="user", content="Hello")
        conversations.append(conversation)
    return Kind(table, *KINDS[table], *conversations)


INSERT = """
    INSERT INTO {table} (user_id, {column}, role, content, created_at)
    VALUES (%s, %s, %s, 'x', now())
"""


def test_a_message_in_another_users_conversation_is_refused(
    kind: Kind, alice: User, bob: User
) -> None:
    refused = (FOREIGN_KEY, f"{kind.table}_conversation_user")
    assert kind.refusal(INSERT, bob.pk, kind.alices.pk, "user") == refused
    assert kind.refusal(INSERT, alice.pk, kind.bobs.pk, "user") == refused
    assert kind.refusal(INSERT, alice.pk, 0, "user") == refused


def test_moving_a_message_to_another_user_is_refused(kind: Kind, alice: User, bob: User) -> None:
    refused = (FOREIGN_KEY, f"{kind.table}_conversation_user")
    message = kind.alices.messages.get().pk
    assert kind.refusal("UPDATE {table} SET user_id = %s WHERE id = %s", bob.pk, message) == refused
    assert (
        kind.refusal("UPDATE {table} SET {column} = %s WHERE id = %s", kind.bobs.pk, message)
        == refused
    )
    kind.run(
        "UPDATE {table} SET {column} = %s, user_id = %s WHERE id = %s",
        kind.bobs.pk,
        bob.pk,
        message,
    )


def test_a_conversation_changes_its_user_only_while_it_has_no_messages(
    kind: Kind, bob: User
) -> None:
    change = "UPDATE {parents} SET user_id = %s WHERE id = %s"
    refused = (FOREIGN_KEY, f"{kind.table}_conversation_user")
    assert kind.refusal(change, bob.pk, kind.alices.pk) == refused
    kind.alices.messages.all().delete()
    kind.run(change, bob.pk, kind.alices.pk)


@pytest.mark.parametrize("role", ["system", "User", "", "tool", "user "])
def test_no_role_but_user_and_assistant_is_stored(role: str, kind: Kind, alice: User) -> None:
    expected = (CHECK, f"{kind.table}_role")
    assert kind.refusal(INSERT, alice.pk, kind.alices.pk, role) == expected
    assert kind.refusal("UPDATE {table} SET role = %s", role) == expected


@pytest.mark.parametrize("status", ["done", "", "Complete"])
def test_no_status_outside_the_list_is_stored(status: str, kind: Kind) -> None:
    assert kind.refusal("UPDATE {table} SET status = %s", status) == (CHECK, f"{kind.table}_status")


@pytest.mark.parametrize(
    "column", ["user_id", "{column}", "role", "content", "created_at", "status"]
)
def test_a_message_has_all_required_columns(column: str, kind: Kind) -> None:
    assert kind.refusal(f"UPDATE {{table}} SET {column} = NULL")[0] == "23502"


def test_a_conversation_has_at_most_one_running_answer(kind: Kind, alice: User, bob: User) -> None:
    RunningAnswer.objects.create(user=alice, message_id=1, **{kind.name: kind.alices})
    RunningAnswer.objects.create(user=bob, message_id=2, **{kind.name: kind.bobs})
    insert = "INSERT INTO running_answers (user_id, {column}, message_id) VALUES (%s, %s, 3)"
    assert kind.refusal(insert, alice.pk, kind.alices.pk)[0] == UNIQUE


def test_a_conversation_stores_each_idempotency_key_once(
    kind: Kind, alice: User, bob: User
) -> None:
    IdempotencyKey.objects.create(user=alice, key="k", digest=b"d", **{kind.name: kind.alices})
    IdempotencyKey.objects.create(user=bob, key="k", digest=b"d", **{kind.name: kind.bobs})
    insert = (
        "INSERT INTO idempotency_keys (user_id, {column}, key, digest) VALUES (%s, %s, 'k', '')"
    )
    assert kind.refusal(insert, alice.pk, kind.alices.pk) == (
        UNIQUE,
        f"idempotency_keys_{kind.name}",
    )


@pytest.mark.parametrize("table", ["running_answers", "idempotency_keys"])
def test_rows_about_a_conversation_name_exactly_one(table: str, alice: User) -> None:
    passage = Passage.objects.create(user=alice, reference="John 3", text="x")
    chat = StandaloneChat.objects.create(user=alice)
    more = ("key, digest", "'k', ''") if table == "idempotency_keys" else ("text", "''")
    sql = (
        f"INSERT INTO {table} (user_id, passage_id, chat_id, message_id, {more[0]}) "
        f"VALUES (%s, %s, %s, 1, {more[1]})"
    )
    for ids in ((passage.pk, chat.pk), (None, None)):
        with pytest.raises(DatabaseError, match=f"{table}_one_conversation"), transaction.atomic():
            connection.cursor().execute(sql, [alice.pk, *ids])


def test_an_insert_of_the_first_five_columns_is_a_whole_message(kind: Kind, alice: User) -> None:
    kind.run(INSERT, alice.pk, kind.alices.pk, "assistant")
    message = kind.alices.messages.get(content="x")
    assert (message.role, message.status, message.truncated) == ("assistant", "complete", False)
    optional = (message.error, message.edited_at, message.reply_to, message.context)
    assert optional == (None, None, None, None)


@pytest.fixture
def first_schema(db: None) -> Iterator[str]:
    """The URL of a separate database at ``0001_initial``."""
    url, name = database_url(connection), "test_verse_first_schema"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        server.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        own = url.replace(f"/{connection.settings_dict['NAME']}?", f"/{name}?")
        migrate = [
            sys.executable,
            "manage.py",
            "migrate",
            "chat",
            "0001_initial",
            "--verbosity",
            "0",
        ]
        environment = clean_environment(DATABASE_URL=own, SECRET_KEY="test", EMBEDDINGS="none")
        subprocess.run(migrate, cwd=ROOT, env=environment, check=True)
        yield own
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_the_first_schema_needs_no_extension_and_takes_messages(first_schema: str) -> None:
    with psycopg.connect(first_schema) as there:
        assert there.execute("SELECT extname FROM pg_extension").fetchall() == [("plpgsql",)]
        user = there.execute(
            "INSERT INTO auth_user (username, password, first_name, last_name, email, "
            "is_superuser, is_staff, is_active, date_joined) "
            "VALUES ('a', '', '', '', '', false, false, true, now()) RETURNING id"
        ).fetchone()
        there.execute(
            "INSERT INTO passages (user_id, reference, text) VALUES (%s, 'John 3', 'x')", user
        )
        there.execute("INSERT INTO standalone_chats (user_id) VALUES (%s)", user)
        for table, (parents, column, _) in KINDS.items():
            there.execute(
                f"INSERT INTO {table} (user_id, {column}, role, content, created_at) "
                f"SELECT user_id, id, 'user', 'x', now() FROM {parents}"
            )
