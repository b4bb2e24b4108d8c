"""adopt_tables names what only the operator can correct, and then changes nothing."""

import json

import psycopg
import pytest

from chat.tests.old_programs import OldDatabase

OTHERS_MESSAGES = """
    INSERT INTO chat_messages (id, user_id, passage_id, role, content)
        SELECT n, 2, 1, 'user', 'Not in my passage' FROM generate_series(101, 103) n
"""
# What prevents a correction, and the problem that is named. Rows: the key of each, and a query.
ROWS: dict[str, str | None] = {
    OTHERS_MESSAGES: "chat_messages: FOREIGN KEY (passage_id, user_id) REFERENCES passages(id, "
    "user_id) is missing; 4 rows do not fit: 4, 101, 102, 103",
    "UPDATE chat_messages SET role = 'system' WHERE id IN (7, 9)": (
        "chat_messages: CHECK chat_messages_role is missing; 2 rows do not fit: 7, 9"
    ),
    "UPDATE chat_messages SET passage_id = 99 WHERE id = 4": (
        "chat_messages: FOREIGN KEY (passage_id) REFERENCES passages(id) is missing;"
        " 1 row does not fit: 4"
    ),
    "UPDATE passages SET text = NULL WHERE id = 2": (
        "passages: column text may be null; 1 row does not fit: 2"
    ),
    "UPDATE standalone_chat_messages SET status = 'sent'": (
        "standalone_chat_messages: CHECK standalone_chat_messages_status is missing; 40 rows do not"
        " fit: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, …"
    ),
    "ALTER TABLE standalone_chats DROP CONSTRAINT standalone_chats_id_key": None,
    "INSERT INTO standalone_chats (id, user_id) VALUES (1, 1), (3, 1)": (
        "standalone_chats: PRIMARY KEY (id) is missing; 2 rows do not fit: 1, 1"
    ),
}
STRUCTURES = {
    "ALTER TABLE chat_messages ALTER id TYPE integer": (
        "chat_messages: column id is integer instead of bigint",
        'ALTER TABLE "chat_messages" ALTER COLUMN "id" TYPE bigint; this rewrites the table',
    ),
    "ALTER TABLE chat_messages ALTER created_at TYPE date": (
        "chat_messages: column created_at is date instead of timestamp with time zone",
        'ALTER TABLE "chat_messages" ALTER COLUMN "created_at" TYPE timestamp with time zone;',
    ),
    "ALTER TABLE standalone_chat_messages DROP COLUMN user_id": (
        "standalone_chat_messages: column user_id is missing, and Verse cannot know its values",
        'ALTER TABLE "standalone_chat_messages" ADD COLUMN IF NOT EXISTS "user_id" integer;',
    ),
    "ALTER TABLE passages ADD COLUMN tenant integer NOT NULL": (
        "passages: column tenant is not one of Verse's and has no default: Verse could add no row",
        'ALTER TABLE "passages" ALTER COLUMN "tenant" DROP NOT NULL; or SET DEFAULT',
    ),
    "ALTER TABLE standalone_chats ADD CONSTRAINT standalone_chats_id_user UNIQUE (id, title)": (
        "standalone_chats: UNIQUE (id, user_id) is missing, another has its name",
        'ALTER INDEX "standalone_chats_id_user" RENAME TO "standalone_chats_id_user_old"',
    ),
    "ALTER TABLE chat_messages ADD CONSTRAINT chat_messages_role CHECK (role <> '')": (
        "chat_messages: CHECK chat_messages_role is missing, another has its name",
        'ALTER TABLE "chat_messages" RENAME CONSTRAINT "chat_messages_role" TO "chat_mess',
    ),
    "ALTER TABLE passages ADD PRIMARY KEY (user_id, id)": (
        "passages: PRIMARY KEY is (user_id, id) instead of (id)",
        "replace it at a quiet hour",
    ),
    "CREATE VIEW rate_windows AS SELECT 1": (
        "rate_windows: it is not an ordinary table (a view, or partitioned)",
        "rename it",
    ),
}


def test_rows_that_break_a_constraint_are_counted_and_named(old: OldDatabase) -> None:
    old.install("loose")
    old.run(";".join(ROWS))
    rows = old.rows()
    differences = old.adopt("--check", "--json").differences
    fixes = {f"{row['table']}: {row['problem']}": row["fix"] for row in differences}
    for problem in filter(None, ROWS.values()):
        query = fixes[problem].removeprefix("correct these rows: ")
        keys = [str(key) for (key,) in old.run(query)]
        assert ", ".join(sorted(keys, key=int)[:20]) in problem
    refuses_to_change_anything(old)
    assert old.rows() == rows


def refuses_to_change_anything(old: OldDatabase) -> None:
    """The command ends with exit code 1; the tables are as before, the migration not recorded."""
    before = old.problems()
    done = old.adopt()
    assert done.code == 1
    assert done.err.startswith("nothing was changed. ")
    assert old.problems() == before
    assert old.run("SELECT 1 FROM django_migrations WHERE app = 'chat'") == []


def test_other_structures_are_named_with_a_statement(old: OldDatabase) -> None:
    old.install("loose")
    old.run("DELETE FROM passages")  # so that a required column can be added
    old.run(";".join(STRUCTURES))
    refused = [row for row in old.adopt("--check", "--json").differences if not row["fixable"]]
    problems = {f"{row['table']}: {row['problem']}": row["fix"] for row in refused}
    assert all(fix for fix in problems.values())
    for problem, fix in STRUCTURES.values():
        assert problems[problem].startswith(fix)
    refuses_to_change_anything(old)


def test_after_the_rows_are_corrected_the_tables_are_adopted(old: OldDatabase) -> None:
    old.install("plain")
    old.run(OTHERS_MESSAGES)
    assert old.adopt().code == 1
    old.run("UPDATE chat_messages SET user_id = 1 WHERE id > 100")
    assert old.adopt().code == 0
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        old.run(OTHERS_MESSAGES.replace("101, 103", "104, 105"))


def test_the_output_names_the_fix_below_each_problem(old: OldDatabase) -> None:
    old.install("plain")
    old.run(OTHERS_MESSAGES)
    done = old.adopt("--check")
    lines = done.out.splitlines()
    at = next(number for number, line in enumerate(lines) if "101, 102, 103" in line)
    assert lines[at + 1].startswith("    correct these rows: SELECT")
    assert done.err == "42 differences, 1 of them for you to correct first, see the indented lines"


def test_restrictions_that_verse_does_not_know_are_noted(old: OldDatabase) -> None:
    old.install("plain")
    old.run("ALTER TABLE chat_messages ADD CONSTRAINT short CHECK (length(content) < 1000)")
    old.run("CREATE UNIQUE INDEX by_title ON standalone_chats (user_id, title)")
    old.adopt()
    done = old.adopt("--check", "--json")
    assert (done.code, json.loads(done.out)["notes"]) == (
        0,
        [
            "chat_messages: Verse does not know short CHECK ((length(content) < 1000))",
            "standalone_chats: by_title is unique, and Verse does not know it",
        ],
    )


def test_a_database_without_such_tables_is_refused(old: OldDatabase) -> None:
    for arguments in ([], ["--check"]):
        done = old.adopt(*arguments)
        assert (done.code, done.out) == (1, "")
        assert done.err.endswith("exists here: run manage.py migrate")


def test_users_must_be_migrated_first(old: OldDatabase) -> None:
    old.install("plain")
    old.run("DELETE FROM django_migrations WHERE app = 'auth'")
    done = old.adopt("--check")
    message = "auth 0001_initial is not applied: run manage.py migrate auth"
    assert (done.code, done.err) == (1, f"{message}, then this again")


@pytest.mark.soak
def test_json_tells_what_was_corrected(old: OldDatabase) -> None:
    old.install("plain")
    before = json.loads(old.adopt("--check", "--json").out)
    assert (before["migration"], before["matches"], before["recorded"]) == (
        "chat.0001_initial",
        False,
        False,
    )
    after = json.loads(old.adopt("--json").out)
    assert (after["matches"], after["recorded"]) == (True, True)
    assert after["corrected"] == before["differences"]
    assert json.loads(old.adopt("--json").out)["corrected"] == []
