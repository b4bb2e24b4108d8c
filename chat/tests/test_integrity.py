"""What PostgreSQL itself refuses, whoever writes: other code, an import, a hand at psql."""

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
class Both:
    """A message table, and a conversation of alice's and of bob's with a message each."""

    table: str
    parents: str
    column: str
    kind: str
    alices: Any
    bobs: Any

    def run(self, sql: str, *values: Any) -> None:
        """One statement in a transaction that is not committed; names in braces are this table's."""
        with connection.cursor() as cursor:
            cursor.execute(
                sql.format(table=self.table, parents=self.parents, column=self.column), values
            )

    def refusal(self, sql: str, *values: Any) -> tuple[str | None, str | None]:
        """SQLSTATE and constraint with which the statement itself, not the commit, is refused."""
        # The savepoint's end checks nothing that is deferred: such a refusal would come too late to be raised here.
        with pytest.raises(DatabaseError) as raised, transaction.atomic():
            self.run(sql, *values)
        error: Any = raised.value.__cause__
        return error.sqlstate, error.diag.constraint_name


@pytest.fixture(params=KINDS)
def both(request: pytest.FixtureRequest, alice: User, bob: User) -> Both:
    """Once for each message table."""
    table: str = request.param
    conversations: list[Any] = []
    for user in (alice, bob):
        made: Any = (
            Passage.objects.create(user=user, reference="John 3", text="For God so loved")
            if table == "chat_messages"
            else StandaloneChat.objects.create(user=user)
        )
        made.messages.create(user=user, role="user", content="Hello")
        conversations.append(made)
    return Both(table, *KINDS[table], *conversations)


INSERT = "INSERT INTO {table} (user_id, {column}, role, content, created_at) VALUES (%s, %s, %s, 'x', now())"


def test_a_message_in_another_users_conversation_is_refused_at_the_insert(
    both: Both, alice: User, bob: User
) -> None:
    refused = (FOREIGN_KEY, f"{both.table}_conversation_user")
    assert both.refusal(INSERT, bob.pk, both.alices.pk, "user") == refused
    assert both.refusal(INSERT, alice.pk, both.bobs.pk, "user") == refused
    assert both.refusal(INSERT, alice.pk, 0, "user") == refused


def test_a_message_moved_to_another_user_or_their_conversation_is_refused_at_the_update(
    both: Both, alice: User, bob: User
) -> None:
    refused = (FOREIGN_KEY, f"{both.table}_conversation_user")
    message = both.alices.messages.get().pk
    assert both.refusal("UPDATE {table} SET user_id = %s WHERE id = %s", bob.pk, message) == refused
    assert (
        both.refusal("UPDATE {table} SET {column} = %s WHERE id = %s", both.bobs.pk, message)
        == refused
    )
    both.run(
        "UPDATE {table} SET {column} = %s, user_id = %s WHERE id = %s",
        both.bobs.pk,
        bob.pk,
        message,
    )


def test_a_conversation_changes_its_user_only_while_it_has_no_messages(
    both: Both, bob: User
) -> None:
    change = "UPDATE {parents} SET user_id = %s WHERE id = %s"
    refused = (FOREIGN_KEY, f"{both.table}_conversation_user")
    assert both.refusal(change, bob.pk, both.alices.pk) == refused
    both.alices.messages.all().delete()
    both.run(change, bob.pk, both.alices.pk)


@pytest.mark.parametrize("role", ["system", "User", "", "tool", "user "])
def test_no_role_but_user_and_assistant_is_stored(role: str, both: Both, alice: User) -> None:
    expected = (CHECK, f"{both.table}_role")
    assert both.refusal(INSERT, alice.pk, both.alices.pk, role) == expected
    assert both.refusal("UPDATE {table} SET role = %s", role) == expected


@pytest.mark.parametrize("status", ["done", "", "Complete"])
def test_no_status_outside_the_list_is_stored(status: str, both: Both) -> None:
    assert both.refusal("UPDATE {table} SET status = %s", status) == (CHECK, f"{both.table}_status")


@pytest.mark.parametrize(
    "column", ["user_id", "{column}", "role", "content", "created_at", "status"]
)
def test_no_message_lacks_what_makes_it_one(column: str, both: Both) -> None:
    assert both.refusal(f"UPDATE {{table}} SET {column} = NULL")[0] == "23502"


def test_a_conversation_has_one_running_answer_at_the_most(
    both: Both, alice: User, bob: User
) -> None:
    RunningAnswer.objects.create(user=alice, message_id=1, **{both.kind: both.alices})
    RunningAnswer.objects.create(user=bob, message_id=2, **{both.kind: both.bobs})
    insert = "INSERT INTO running_answers (user_id, {column}, message_id) VALUES (%s, %s, 3)"
    assert both.refusal(insert, alice.pk, both.alices.pk)[0] == UNIQUE


def test_a_key_is_kept_once_for_each_conversation(both: Both, alice: User, bob: User) -> None:
    IdempotencyKey.objects.create(user=alice, key="k", digest=b"d", **{both.kind: both.alices})
    IdempotencyKey.objects.create(user=bob, key="k", digest=b"d", **{both.kind: both.bobs})
    insert = (
        "INSERT INTO idempotency_keys (user_id, {column}, key, digest) VALUES (%s, %s, 'k', '')"
    )
    assert both.refusal(insert, alice.pk, both.alices.pk) == (
        UNIQUE,
        f"idempotency_keys_{both.kind}",
    )


@pytest.mark.parametrize("table", ["running_answers", "idempotency_keys"])
def test_what_is_about_one_conversation_names_exactly_one(table: str, alice: User) -> None:
    passage = Passage.objects.create(user=alice, reference="John 3", text="x")
    chat = StandaloneChat.objects.create(user=alice)
    more = ("key, digest", "'k', ''") if table == "idempotency_keys" else ("text", "''")
    sql = f"INSERT INTO {table} (user_id, passage_id, chat_id, message_id, {more[0]}) VALUES (%s, %s, %s, 1, {more[1]})"
    for ids in ((passage.pk, chat.pk), (None, None)):
        with pytest.raises(DatabaseError, match=f"{table}_one_conversation"), transaction.atomic():
            connection.cursor().execute(sql, [alice.pk, *ids])


def test_an_insert_by_code_that_knows_five_columns_is_a_whole_message(
    both: Both, alice: User
) -> None:
    both.run(INSERT, alice.pk, both.alices.pk, "assistant")
    message = both.alices.messages.get(content="x")
    assert (message.role, message.status, message.truncated) == ("assistant", "complete", False)
    assert (message.error, message.edited_at, message.reply_to, message.context) == (
        None,
        None,
        None,
        None,
    )


@pytest.fixture
def first_schema(db: None) -> Iterator[str]:
    """The URL of a database of its own that has had ``0001_initial`` and nothing later."""
    url, name = database_url(connection), "test_verse_first_schema"
    with psycopg.connect(url, autocommit=True) as here:
        here.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        here.execute(f"CREATE DATABASE {name} TEMPLATE template0")
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
        here.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_the_first_schema_needs_no_extension_and_takes_messages(first_schema: str) -> None:
    with psycopg.connect(first_schema) as there:
        assert there.execute("SELECT extname FROM pg_extension").fetchall() == [("plpgsql",)]
        user = there.execute(
            "INSERT INTO auth_user (username, password, first_name, last_name, email, is_superuser, is_staff, "
            "is_active, date_joined) VALUES ('a', '', '', '', '', false, false, true, now()) RETURNING id"
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
