"""Runs the operators' pages block by block: each works and prints what the page shows.

The first pages (ROLLOUT) start with a database at 0001_initial with messages, a server of the old
code, and a user who chats all the time. They add memory and remove it. The others (OPERATION) run
on a server with memory.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fake_openai import Answer, FakeOpenAI
from tests.guide import NEW_PORT, OLD_PORT, Place, Shell, place_of, same
from tests.guide_traffic import PAUSE_S, OpenTransactions, Traffic
from tests.pages import OPERATION, ROLLOUT, RUN, Block, blocks_of
from tests.rehearsal import old_code
from tests.support import ROOT

DOCS = ROOT / "docs"
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
.venv/bin/python manage.py create_token carol
cd /srv/verse/new
"""
STUDY = """
psql "service=verse-admin dbname=study" --command "CREATE EXTENSION vector"
DATABASE_URL=$STUDY .venv/bin/python manage.py migrate --verbosity 0
"""
# The user who chats; added after the others, without messages.
CAROL = """
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email,
        is_staff, is_active, date_joined)
    VALUES ('carol', '!', false, '', '', '', false, true, now())
"""
# How long the long snapshots stay open, by PostgreSQL's version: 18 runs in `make soak`.
SNAPSHOT_S = {16: 6, 18: 30}
ROTATION, SECOND_KEY = "howto/rotate-a-key", "sk-embeddings-second"
# The nightly script, without the statement that drops the rehearsal's database.
NIGHT = """
sed '/DROP DATABASE verse_rehearsal/d' ~/verse-backups/nightly.sh > ~/keep.sh
sh ~/keep.sh > /dev/null
ls ~/verse-backups
"""
INDEXES = "SELECT relname FROM pg_class WHERE relkind = 'i'"
OLD_PROGRAMS = "/usr/lib/postgresql/15/bin"
WITH_OLD_PG_DUMP = "~/verse-backups/nightly.sh || ls ~/verse-backups"
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


@pytest.fixture(scope="module")
def service() -> Iterator[FakeOpenAI]:
    """The language model and the embedding service."""
    with FakeOpenAI() as model:
        model.chat.default = Answer("I see.")
        yield model


@pytest.fixture(scope="module", params=EVERY_VERSION)
def place(request: pytest.FixtureRequest, service: FakeOpenAI) -> Iterator[Place]:
    """A live chat of the old code, and the unpacked new release."""
    with place_of(request.param) as new_place, old_code() as old:
        settings = {
            "LLM_BASE_URL": service.base_url,
            "LLM_API_KEY": "sk-for-the-language-model",
            "OPENAI_BASE_URL": service.base_url,
            # A busy machine must not end a call: the pages show a log without errors.
            "RAG_TIMEOUT": "30",
            "EMBEDDING_TIMEOUT": "60",
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
def test_the_pages_work_from_start_to_end_under_traffic(
    place: Place, shell: Shell, service: FakeOpenAI
) -> None:
    run_hidden(shell, "cd /srv/verse/old; .venv/bin/python manage.py migrate --verbosity 0\n")
    place.run(USERS + ";" + CAROL)
    token = run_hidden(shell, START_OLD).split()[-1]
    traffic = Traffic(
        [f"http://127.0.0.1:{place.ports[port]}" for port in (OLD_PORT, NEW_PORT)], token
    )
    transactions = OpenTransactions(place, SNAPSHOT_S[place.version])
    try:
        for name in ROLLOUT:
            follow(DOCS / f"{name}.md", shell)
            if name == ROTATION:
                assert_only_the_second_key_is_used(service, traffic)
    finally:
        traffic.end()
        transactions.end()
    assert traffic.failures == []
    assert transactions.held > 3
    stored = set(place.run("SELECT id, content FROM standalone_chat_messages"))
    assert set(traffic.written) - stored == set()
    assert all(traffic.served.get(url, 0) > 5 for url in traffic.urls), traffic.served
    assert_adopted_tables_work(place, shell)
    run_hidden(shell, WITH_MEMORY)
    assert_each_night_has_its_own_backup(place, shell)
    for name in OPERATION:
        follow(DOCS / f"{name}.md", shell)


def assert_only_the_second_key_is_used(service: FakeOpenAI, traffic: Traffic) -> None:
    """From now on no call has the first key, so it can be revoked; no turn has failed."""
    before, turns = len(service.requests), len(traffic.written)
    while len(traffic.written) < turns + 5:
        assert traffic.failures == []
        time.sleep(PAUSE_S)
    later = [call for call in service.requests[before:] if call.path.endswith("/embeddings")]
    assert {call.headers["authorization"] for call in later} == {f"Bearer {SECOND_KEY}"}


def assert_each_night_has_its_own_backup(place: Place, shell: Shell) -> None:
    """A second run overwrites nothing, the rehearsal has no HNSW index, an old pg_dump fails."""
    dumps = run_hidden(shell, "ls ~/verse-backups").split()
    after = run_hidden(shell, NIGHT).split()
    assert set(dumps) < set(after)
    assert len(after) == len(dumps) + 1
    indexes = {str(name) for (name,) in place.run(INDEXES, database="verse_rehearsal")}
    assert "message_memories_pending" in indexes
    assert not [name for name in indexes if name.endswith(("embedding", "embedding_user"))]
    assert place.run("SELECT count(*) FROM chat_messages", database="verse_rehearsal") == [(150,)]
    if Path(OLD_PROGRAMS).exists():
        printed = run_hidden(shell, f"PATH={OLD_PROGRAMS}:$PATH {WITH_OLD_PG_DUMP}")
        assert "server version mismatch" in printed
        assert printed.split()[-len(after) :] == after


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
