"""Tables as programs before Verse made them, to be adopted."""

import json
from dataclasses import dataclass
from io import StringIO
from typing import Any

from django.core.management import CommandError, call_command

from tests.databases import Database

# The tables of a careful program.
PLAIN = """
    CREATE TABLE passages (
        id bigserial PRIMARY KEY,
        user_id integer NOT NULL REFERENCES auth_user ON DELETE CASCADE,
        reference varchar(200) NOT NULL, text text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE standalone_chats (
        id bigserial PRIMARY KEY,
        user_id integer NOT NULL REFERENCES auth_user ON DELETE CASCADE,
        title varchar(200) NOT NULL DEFAULT '', created_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE chat_messages (
        id bigserial PRIMARY KEY,
        user_id integer NOT NULL REFERENCES auth_user ON DELETE CASCADE,
        passage_id bigint NOT NULL REFERENCES passages ON DELETE CASCADE,
        role varchar(9) NOT NULL, content text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE standalone_chat_messages (
        id bigserial PRIMARY KEY,
        user_id integer NOT NULL REFERENCES auth_user ON DELETE CASCADE,
        chat_id bigint NOT NULL REFERENCES standalone_chats ON DELETE CASCADE,
        role varchar(9) NOT NULL, content text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now());
"""
# The tables of a program that relies on the database for little: few keys, nearly all nullable,
# text for all strings, ids from everywhere, a tag and a status of its own.
LOOSE = """
    CREATE TABLE passages (
        id bigint GENERATED ALWAYS AS IDENTITY, user_id integer, reference varchar(100),
        text varchar(40000), created_at timestamptz, tag text DEFAULT 'none');
    CREATE UNIQUE INDEX passages_pair ON passages (id, user_id);
    CREATE SEQUENCE chat_numbers;
    CREATE TABLE standalone_chats (
        id bigint UNIQUE DEFAULT nextval('chat_numbers'), user_id integer, title text,
        memory boolean DEFAULT false, created_at timestamptz DEFAULT clock_timestamp());
    CREATE TABLE chat_messages (
        id bigint, user_id integer, passage_id bigint, role text,
        content varchar, created_at timestamptz DEFAULT now() - interval '1 hour');
    CREATE INDEX chat_messages_by_user ON chat_messages (user_id);
    CREATE TABLE standalone_chat_messages (
        id bigserial PRIMARY KEY, user_id integer NOT NULL, chat_id bigint NOT NULL,
        role text CHECK (role IN ('user', 'assistant')), content text NOT NULL,
        status varchar(20) NOT NULL DEFAULT 'complete', edited_at timestamptz NOT NULL
            DEFAULT now(), created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP);
    ALTER TABLE standalone_chat_messages ADD CONSTRAINT of_a_user
        FOREIGN KEY (user_id) REFERENCES auth_user (id) ON DELETE CASCADE NOT VALID;
"""
PROGRAMS = {"plain": PLAIN, "loose": LOOSE}
USERS = """
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email,
        is_staff, is_active, date_joined)
    SELECT name, '!', false, '', '', '', false, true, now()
    FROM unnest(ARRAY['alice', 'bob']) AS name
"""
# Ids of all but chats are given, so that their sequences are behind. 40 messages a table.
ROWS = """
    INSERT INTO passages (id, user_id, reference, text, created_at) OVERRIDING SYSTEM VALUE
        SELECT id, id, 'Ruth 1:16', 'Whither thou goest, I will go.', now() FROM auth_user;
    INSERT INTO standalone_chats (user_id, title) SELECT id, 'Ruth' FROM auth_user;
    INSERT INTO chat_messages (id, user_id, passage_id, role, content, created_at)
        SELECT 2 * n + p.id, user_id, p.id, 'user', 'Who says this? ' || n, now()
        FROM passages p, generate_series(0, 19) n;
    INSERT INTO standalone_chat_messages (id, user_id, chat_id, role, content)
        SELECT 2 * n + c.id, user_id, c.id, 'assistant', 'Ruth says it. ' || n
        FROM standalone_chats c, generate_series(0, 19) n;
"""
AHEAD = """
    SELECT setval(pg_get_serial_sequence(name, 'id'), 40)
    FROM unnest(ARRAY['passages', 'chat_messages', 'standalone_chat_messages']) AS name
"""
ALL_ROWS = """
    SELECT 'chat_messages', id, user_id, passage_id, role, content, created_at FROM chat_messages
    UNION ALL SELECT 'standalone_chat_messages', id, user_id, chat_id, role, content, created_at
    FROM standalone_chat_messages
    UNION ALL SELECT 'passages', id, user_id, NULL, reference, text, created_at FROM passages
    UNION ALL SELECT 'standalone_chats', id, user_id, NULL, title, '', created_at
    FROM standalone_chats
    ORDER BY 1, 2
"""


@dataclass(frozen=True)
class Done:
    """The exit code of a command, its output, and the line of its error."""

    code: int
    out: str
    err: str

    @property
    def differences(self) -> list[dict[str, Any]]:
        """The lines that --check --json prints."""
        return list(json.loads(self.out)["differences"])


class OldDatabase(Database):
    """A database with the tables of users, and what a test adds."""

    def __init__(self, name: str, template: Database) -> None:
        super().__init__(name, template=template.name)

    def install(self, program: str) -> list[tuple[Any, ...]]:
        """Create the program's tables with rows of alice and bob; all rows."""
        self.run(PROGRAMS[program])
        self.run(ROWS)
        return self.rows()

    def rows(self) -> list[tuple[Any, ...]]:
        """What the four tables hold, in the columns that an old program knows."""
        return self.run(ALL_ROWS)

    def adopt(self, *arguments: str) -> Done:
        """Run ``adopt_tables`` in this process, which is quicker than in its own."""
        out = StringIO()
        try:
            with self.connected():
                call_command("adopt_tables", *arguments, stdout=out)
        except CommandError as error:
            return Done(error.returncode, out.getvalue(), str(error))
        return Done(0, out.getvalue(), "")

    def problems(self) -> list[str]:
        """What ``adopt_tables --check`` says differs; its exit code must fit."""
        done = self.adopt("--check", "--json")
        problems = [f"{row['table']}: {row['problem']}" for row in done.differences]
        assert done.code == bool(problems), done
        return problems
