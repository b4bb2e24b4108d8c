"""Runs the operators' pages block by block: each works and prints what the page shows.

The first pages (ROLLOUT) start with a database at 0001_initial with messages, a server of the old
code, and a user who chats all the time. They add memory and remove it. The others (OPERATION) run
on a server with memory.
"""

import importlib
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fake_openai import Answer, FakeOpenAI
from tests.guide import NEW_PORT, OLD_PORT, Place, Shell, Traffic, place_of, same
from tests.pages import OPERATION, ROLLOUT, Block, blocks_of
from tests.rehearsal import old_code
from tests.support import ROOT

DOCS = ROOT / "docs"
PAGES = [DOCS / f"{name}.md" for name in ROLLOUT + OPERATION]
RUN = {"sh", "sql", "python"}
# Why blocks are not run, and how many; no other reason is allowed.
REASONS = {"cloud console": 1, "installs": 1}
EVERY_VERSION = [16, pytest.param(18, marks=pytest.mark.soak)]
needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="the pages' commands need curl")
# 120 and 150 messages of three users. The pages show these counts.
USERS = """
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email,
        is_staff, is_active, date_joined)
    SELECT name, '!', false, '', '', '', false, true, now()
    FROM unnest(ARRAY['operator', 'alice', 'bob']) name;
    INSERT INTO standalone_chats (user_id, title) SELECT id, 'Dogs' FROM auth_user ORDER BY id;
    INSERT INTO passages (user_id, reference, text)
        SELECT id, 'Tobit 6', 'And the dog followed.' FROM auth_user ORDER BY id;
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
        SELECT user_id, id, 'user',
            'My dog is called ' || (ARRAY['Biscuit', 'Muffin', 'Pepper'])[id] || '.',
            now() - interval '90 days' FROM standalone_chats;
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
        SELECT user_id, id, (ARRAY['assistant', 'user'])[n % 2 + 1],
            'About the weather, number ' || n, now() - n * interval '1 hour'
        FROM standalone_chats, generate_series(1, 39) n;
    INSERT INTO chat_messages (user_id, passage_id, role, content, created_at)
        SELECT user_id, id, (ARRAY['assistant', 'user'])[n % 2 + 1],
            'About the angel, number ' || n, now() - n * interval '1 hour'
        FROM passages, generate_series(1, 50) n;
"""
START_OLD = """
cd /srv/verse/old
(PORT=8000 nohup .venv/bin/gunicorn verse.asgi:application --pid /srv/verse/8000.pid \\
  >> /srv/verse/8000.log 2>&1 &)
curl --silent --retry 60 --retry-connrefused --retry-delay 1 --output /dev/null \\
  http://127.0.0.1:8000/readyz
.venv/bin/python manage.py create_token bob
cd /srv/verse/new
"""
STUDY = """
psql "service=verse-admin dbname=study" --command "CREATE EXTENSION vector"
DATABASE_URL=$STUDY .venv/bin/python manage.py migrate --verbosity 0
"""
ORPAH = """
    INSERT INTO auth_user SELECT id + 1, password, last_login, is_superuser, 'orpah', first_name,
        last_name, email, is_staff, is_active, date_joined FROM auth_user
"""
IN_RUTHS_CONVERSATION = """
    INSERT INTO chat_messages (user_id, passage_id, role, content)
        SELECT user_id + 1, id, 'user', 'Mine' FROM passages
"""
WITH_MEMORY = """
kill -TERM $(cat /srv/verse/8000.pid); while [ -e /srv/verse/8000.pid ]; do sleep 0.1; done
psql service=verse-admin --command "CREATE EXTENSION IF NOT EXISTS vector"
sed -i "s/^OPENAI_API_KEY=.*/OPENAI_API_KEY=sk-embeddings-only/" .env
sed -i "s/^RAG_ENABLED=.*/RAG_ENABLED=true/" .env
.venv/bin/python manage.py migrate
.venv/bin/python manage.py backfill_embeddings --sleep 0
(PORT=8000 nohup .venv/bin/gunicorn verse.asgi:application --pid /srv/verse/8000.pid \\
  >> /srv/verse/8000.log 2>&1 &)
curl --silent --retry 60 --retry-connrefused --retry-delay 1 http://127.0.0.1:8000/readyz
"""
# The mistakes that docs/doctor.md lists (trap.1 to .26), as they would look in a block.
WRONG = {
    1: r"array_length\(",
    2: r"/ *COUNT\(\*\)",
    3: r"\btablename|\bindexname\b",
    4: r"'\[[^']*\.\.\.",
    6: r"shared_preload",
    7: r"GRANT ALL",
    8: r"CREATE (UNIQUE )?INDEX (?!CONCURRENTLY)",
    9: r"psql[^|\n]*<\s*\S*\.sql",
    12: r"EXTENSION[^;\n]*CASCADE",
    13: r"data_type|USER-DEFINED",
    15: r"import os",
    16: r"pg_dump[^|\n]*>\s*\S+\.sql|^\s*(psql|pg_\w+)\b[^\n]*://[^\s:]+:[^\s@]+@",
    18: r"DROP INDEX (?!CONCURRENTLY)",
    24: r"kubectl exec -it",
}


def runnable(page: Path) -> list[Block]:
    """The page's blocks that are run, in order."""
    return [block for block in blocks_of(page) if block.kind in RUN and block.reason is None]


def follow(page: Path, shell: Shell) -> None:
    """Run the page's blocks in order. AssertionError: a block fails or prints something else."""
    for block in runnable(page):
        printed = shell.run(block)
        where = f"{page.name}, line {block.line}"
        assert same(printed, block.shown or ""), (
            f"{where}:\n{block.text}\nprints:\n{printed}\nshown:\n{block.shown}"
        )


def run_hidden(shell: Shell, script: str) -> str:
    """The output of a script that is in no page."""
    return shell.run(Block("sh", script, 0))


@pytest.fixture(scope="module", params=EVERY_VERSION)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A live chat of the old code, and the unpacked new release."""
    with place_of(request.param) as new_place, old_code() as old, FakeOpenAI() as model:
        model.chat.default = Answer("I see.")
        settings = {
            "LLM_BASE_URL": model.base_url,
            "LLM_API_KEY": "sk-model-only",
            "OPENAI_BASE_URL": model.base_url,
        }
        new_place.release("old", old, settings | {"THROTTLE_MESSAGES": "off"})
        new_place.release("new", ROOT)
        yield new_place


@pytest.fixture(scope="module")
def shell(place: Place) -> Iterator[Shell]:
    """The operator's shell, the same for both pages."""
    bash = Shell(place)
    yield bash
    bash.end()


@needs_curl
def test_the_pages_work_from_start_to_end_under_traffic(place: Place, shell: Shell) -> None:
    run_hidden(shell, "cd /srv/verse/old; .venv/bin/python manage.py migrate --verbosity 0\n")
    place.run(USERS)
    token = run_hidden(shell, START_OLD).split()[-1]
    traffic = Traffic(
        [f"http://127.0.0.1:{place.ports[port]}" for port in (OLD_PORT, NEW_PORT)], token
    )
    try:
        for name in ROLLOUT:
            follow(DOCS / f"{name}.md", shell)
    finally:
        traffic.end()
    assert traffic.failures == []
    stored = set(place.run("SELECT id, content FROM standalone_chat_messages"))
    assert set(traffic.written) - stored == set()
    assert all(traffic.served.get(url, 0) > 5 for url in traffic.urls), traffic.served
    assert_adopted_tables_work(place, shell)
    run_hidden(shell, WITH_MEMORY)
    for name in OPERATION:
        follow(DOCS / f"{name}.md", shell)


def assert_adopted_tables_work(place: Place, shell: Shell) -> None:
    """Hand-made tables migrate, keep their rows, and refuse another user's conversation."""
    run_hidden(shell, STUDY)
    assert place.run("SELECT content FROM chat_messages", database="study") == [
        ("Who says this to whom?",)
    ]
    place.run(ORPAH, database="study")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        place.run(IN_RUTHS_CONVERSATION, database="study")
    assert place.run("SELECT count(*) FROM message_memories", database="study") == [(0,)]


def test_blocks_are_skipped_only_for_known_reasons() -> None:
    reasons = Counter(block.reason for page in PAGES for block in blocks_of(page) if block.reason)
    print(f"{reasons.total()} blocks are not run: {dict(reasons)}")  # noqa: T201 # for pytest -rP
    assert reasons == REASONS


def test_all_kinds_of_blocks_are_run_but_output_and_crontab() -> None:
    others = {block.kind for page in PAGES for block in blocks_of(page)} - RUN
    assert others == {"text", "crontab"}


@pytest.mark.parametrize("number", WRONG)
def test_no_block_falls_into_a_trap(number: int) -> None:
    for page in PAGES:
        for block in blocks_of(page):
            if block.kind in RUN:
                match = re.search(WRONG[number], block.text, re.IGNORECASE | re.MULTILINE)
                assert match is None, f"{page.name}, line {block.line}: {match}"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1, "SELECT array_length(embedding::text::float[], 1)"),
        (2, "SELECT 100 * COUNT(embedding) / COUNT(*)"),
        (3, "SELECT tablename FROM pg_stat_user_indexes"),
        (4, "ORDER BY embedding <=> '[0.1, 0.2, ...]'"),
        (8, "CREATE INDEX idx ON chat_messages USING hnsw"),
        (9, "psql verse < backup.sql"),
        (12, "DROP EXTENSION vector CASCADE"),
        (16, "pg_dump verse > backup.sql"),
        (16, "psql postgresql://verse:secret@db.example.com/verse"),
        (18, "DROP INDEX idx_chat_messages_embedding_user"),
    ],
)
def test_traps_are_recognised(number: int, text: str) -> None:
    assert re.search(WRONG[number], text, re.IGNORECASE | re.MULTILINE)


def test_blocks_that_alter_a_table_set_a_lock_timeout() -> None:
    for page in PAGES:
        for block in blocks_of(page):
            assert "ALTER TABLE" not in block.text or "SET lock_timeout" in block.text, (
                f"{page.name}, line {block.line}"
            )


def test_the_table_of_locks_has_every_migration() -> None:
    rows = set(
        re.findall(r"^\| `(\d{4}_\w+)` \|", (DOCS / "deployment.md").read_text(), re.MULTILINE)
    )
    files = {file.stem for file in (ROOT / "chat/migrations").glob("0*.py")} - {"0001_initial"}
    assert files - rows == set()


@pytest.mark.parametrize("name", ["CRITERIA", "CHECKLIST", "TRAPS"])
def test_the_doctor_page_has_the_doctors_sentences(name: str) -> None:
    sentences: dict[str, str] = getattr(importlib.import_module("retrieval.doctor.criteria"), name)
    kind = next(iter(sentences)).partition(".")[0]
    rows = re.findall(
        rf"^\| `({kind}\.\d+)` \| (.*) \|$", (DOCS / "doctor.md").read_text(), re.MULTILINE
    )
    assert dict(rows) == sentences
    assert len(rows) == len(sentences)


@pytest.mark.parametrize(
    ("printed", "shown", "expected"),
    [
        ("a 1.2.3\nb\nc\n", "a 0.9.9\n…\nc\n", True),
        ("a\nc\n", "a\n…\nc\n", True),
        ("a\nb\n", "a\n…\n", True),
        ("took 3 ms, 17 kB\n", "took 4.5 s, 8192 bytes\n", True),
        ("a: 7 rows  \n\n", "a: … rows\n", True),
        ("a: 7\nrows\n", "a: … rows\n", False),
        ("a\n", "a\nb\n", False),
        ("a\nb\n", "a\n", False),
        ("ab\n", "a.\n", False),
    ],
)
def test_outputs_are_compared_without_what_varies(printed: str, shown: str, expected: bool) -> None:
    assert same(printed, shown) is expected
