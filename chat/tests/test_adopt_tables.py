"""adopt_tables: what it finds in tables of an older program, what it corrects, what it does not."""

import json
import re

import pytest

from chat.tests.old_programs import AHEAD, PROGRAMS, ROWS, OldDatabase
from tests.databases import Database
from tests.support import ROOT

CATALOG = (ROOT / "tests" / "catalog.sql").read_text()
# Each statement spoils the tables of chat 0001_initial; what --check then says.
FAULTS = {
    "DROP TABLE rate_windows": "rate_windows: the table is missing",
    "ALTER TABLE chat_messages DROP COLUMN truncated": "chat_messages: column truncated is missing",
    "ALTER TABLE passages ALTER reference TYPE varchar(80)": (
        "passages: column reference is character varying(80) instead of character varying(200)"
    ),
    "ALTER TABLE passages ALTER text DROP NOT NULL": "passages: column text may be null",
    "ALTER TABLE idempotency_keys ALTER message_id SET NOT NULL": (
        "idempotency_keys: column message_id must not be null, but Verse leaves it empty"
    ),
    "ALTER TABLE standalone_chats ALTER title DROP DEFAULT": (
        "standalone_chats: column title has no default instead of ''::character varying"
    ),
    "ALTER TABLE chat_messages ALTER status SET DEFAULT 'failed'": (
        "chat_messages: column status has the default 'failed'::character varying"
        " instead of 'complete'::character varying"
    ),
    "ALTER TABLE api_tokens ALTER id DROP IDENTITY": "api_tokens: column id has no sequence",
    "ALTER TABLE running_answers ALTER id SET GENERATED ALWAYS": (
        "running_answers: column id is GENERATED ALWAYS instead of BY DEFAULT"
    ),
    "ALTER TABLE memory_switches DROP CONSTRAINT memory_switches_pkey": (
        "memory_switches: PRIMARY KEY (user_id) is missing"
    ),
    "ALTER TABLE standalone_chats DROP CONSTRAINT standalone_chats_id_user CASCADE": (
        "standalone_chats: UNIQUE (id, user_id) is missing"
    ),
    "ALTER TABLE chat_messages DROP CONSTRAINT chat_messages_conversation_user": (
        "chat_messages: FOREIGN KEY (passage_id, user_id) REFERENCES passages(id, user_id)"
        " is missing"
    ),
    "ALTER TABLE chat_messages DROP CONSTRAINT chat_messages_status": (
        "chat_messages: CHECK chat_messages_status is missing"
    ),
    "UPDATE pg_constraint SET convalidated = false WHERE conname = 'chat_messages_role'": (
        "chat_messages: constraint chat_messages_role is not validated"
    ),
    "DROP INDEX chat_messages_in_order": (
        "chat_messages: index (passage_id, created_at, id) is missing"
    ),
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = "
    "'standalone_messages_in_order'::regclass": (
        "standalone_chat_messages: index (chat_id, created_at, id) is missing"
    ),
    "SELECT setval('chat_messages_id_seq', 3)": (
        "chat_messages: the next id would be 4, the largest is 40"
    ),
}
DROPPED_WITH_ITS_KEY = (
    "standalone_chat_messages: FOREIGN KEY (chat_id, user_id)"
    " REFERENCES standalone_chats(id, user_id) is missing"
)


# In what the catalog prints: how PostgreSQL writes a CHECK again (casts, parentheses), and what
# adopt_tables leaves as the older program has it.
CASTS = re.compile(r"::[a-z ]+(\[\])?|[()]")
FREE = re.compile(
    r" ON DELETE CASCADE| DEFERRABLE INITIALLY DEFERRED|(?<=INDEX )\w+ |"
    r"(?<=bigint t )(d| nextval.*)|\bnow\b|statement_timestamp"
)


@pytest.fixture
def verses(old: OldDatabase) -> OldDatabase:
    """A database at chat 0001_initial, with rows."""
    old.migrate("chat", "0001_initial")
    old.run(ROWS + AHEAD)
    return old


def catalog(database: Database) -> set[tuple[str, ...]]:
    """Everything of the tables, without casts."""
    return {tuple(CASTS.sub("", str(part)) for part in row) for row in database.run(CATALOG)}


def structure(database: Database) -> set[str]:
    """The catalog without names of keys and indexes, and without what is free."""
    rows = catalog(database)
    named = ("column", "table")
    return {
        FREE.sub("", f"{kind} {table} {name if kind in named else ''} {definition} {extra}")
        for kind, table, name, definition, extra in rows
    }


@pytest.mark.parametrize("program", PROGRAMS)
def test_tables_of_an_older_program_become_those_of_verse(program: str, old: OldDatabase) -> None:
    rows = old.install(program)
    assert len(old.problems()) > 40
    done = old.adopt()
    assert (done.code, done.err) == (0, ""), done
    assert done.out.splitlines()[-1].startswith("chat 0001_initial is recorded as applied: go on")
    assert old.problems() == []
    matches = "all tables match, and chat 0001_initial is recorded as applied\n"
    assert old.adopt("--check").out == matches
    assert old.rows() == rows


def test_adopted_tables_lack_nothing_that_migrated_ones_have(
    old: OldDatabase, database: Database
) -> None:
    old.install("plain")
    old.adopt()
    database.migrate("chat", "0001_initial")
    assert structure(database) - structure(old) == set()


def test_each_fault_is_named_and_corrected(verses: OldDatabase) -> None:
    assert verses.problems() == []
    before = catalog(verses)
    verses.run(";".join(FAULTS))
    assert set(verses.problems()) == {*FAULTS.values(), DROPPED_WITH_ITS_KEY}
    done = verses.adopt()
    assert (done.code, done.err) == (0, ""), done
    assert verses.problems() == []
    assert catalog(verses) == before


@pytest.mark.newest_schema
def test_the_newest_schema_still_matches(verses: OldDatabase) -> None:
    verses.migrate("chat")
    done = verses.adopt("--check", "--json")
    assert (done.code, json.loads(done.out)["notes"]) == (0, [])
