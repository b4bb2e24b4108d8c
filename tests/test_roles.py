"""Three database roles: the owner migrates, the web serves, the backfill embeds, and no more."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors

from fake_openai import Answer, FakeOpenAI
from tests.databases import Database, wait_for_build
from tests.embed_worker import Worker
from tests.support import PATIENCE_S, ROOT, Server, clean_environment, wait_for

pytestmark = pytest.mark.newest_schema
FACT = "My dog is called Biscuit and he loves cheese."
QUESTION = "What is my dog called?"
PASSWORD = "a long enough password"
# Every grant on tables and columns, and the default privileges.
GRANTS = """
    SELECT relname::text, '', relacl::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
        AND relkind IN ('r', 'S')
    UNION ALL SELECT attrelid::regclass::text, attname::text, attacl::text FROM pg_attribute
        WHERE attacl IS NOT NULL AND NOT attisdropped
    UNION ALL SELECT 'default', defaclobjtype::text, defaclacl::text FROM pg_default_acl
    ORDER BY 1, 2
"""


class Roles(Database):
    """A database that its owner has migrated, and the roles of servers and backfill."""

    def __init__(self, name: str, worker: str) -> None:
        super().__init__(name)
        self.owner, self.web, self.backfill = f"own_{worker}", f"web_{worker}", f"fill_{worker}"
        self.drop_roles()
        self.run(f"CREATE ROLE {self.owner} LOGIN; ALTER DATABASE {name} OWNER TO {self.owner}")
        self.run("CREATE EXTENSION vector")
        self.manage(self.owner, "migrate")

    def url_of(self, role: str) -> str:
        return self.url.replace("user=verse", f"user={role}")

    def manage(
        self, role: str, *arguments: str, code: int = 0, values: dict[str, str] | None = None
    ) -> str:
        """The output of a command run as this role; with ``code`` 1 its last error line."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=clean_environment(
                **{"DATABASE_URL": self.url_of(role), "SECRET_KEY": "test"} | (values or {})
            ),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr.strip().splitlines()[-1] if code else done.stdout

    def grant(self, *options: str, code: int = 0) -> str:
        both = ("--web", self.web, "--backfill", self.backfill)
        return self.manage(self.owner, "grant_roles", *both, *options, code=code)

    def run_as(self, role: str, sql: str) -> list[tuple[Any, ...]]:
        """The rows of the statement. Raises InsufficientPrivilege."""
        with psycopg.connect(self.url_of(role), autocommit=True) as session:
            cursor = session.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def drop_roles(self) -> None:
        """Those of this run, or of one that was killed."""
        for role in (self.web, self.backfill, self.owner):
            if self.run("SELECT 1 FROM pg_roles WHERE rolname = %s", role):
                self.run(
                    f"REASSIGN OWNED BY {role} TO verse; DROP OWNED BY {role}; DROP ROLE {role}"
                )

    def drop(self) -> None:
        self.drop_roles()
        super().drop()


@pytest.fixture(scope="module")
def migrated(django_db_setup: None, django_db_blocker: Any, worker_id: str) -> Iterator[Roles]:
    """The database before the grants."""
    with django_db_blocker.unblock():
        database = Roles(f"roles_{worker_id}", worker_id)
        yield database
        database.drop()


@pytest.fixture(scope="module")
def database(migrated: Roles) -> Roles:
    """The database after the grants."""
    web, backfill = migrated.web, migrated.backfill
    error = migrated.grant(code=1)
    assert f"CREATE ROLE \"{web}\" LOGIN PASSWORD '...';" in error
    assert f"CREATE ROLE \"{backfill}\" LOGIN PASSWORD '...';" in error
    migrated.run("CREATE TABLE payroll (salary integer)")  # another application's
    migrated.run(f"CREATE ROLE {web} LOGIN; CREATE ROLE {backfill} LOGIN")
    assert "Granted to" in migrated.grant()
    return migrated


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeOpenAI]:
    """The language model and the embedding service."""
    with FakeOpenAI() as server:
        server.chat.default = Answer("I see.")
        yield server


def settings_of(fake: FakeOpenAI) -> dict[str, str]:
    """Settings that turn memory on."""
    return {
        "LLM_BASE_URL": fake.base_url,
        "OPENAI_BASE_URL": fake.base_url,
        "OPENAI_API_KEY": "sk-test-0123456789",
    }


@pytest.fixture(scope="module")
def server(database: Roles, fake: FakeOpenAI) -> Iterator[Server]:
    """A server that connects as the web's role."""
    database.manage(
        database.web, "createsuperuser", "--noinput", "--username", "operator", "--email", "",
        values={"DJANGO_SUPERUSER_PASSWORD": PASSWORD},
    )  # fmt: skip
    running = Server({"DATABASE_URL": database.url_of(database.web), **settings_of(fake)})
    yield running
    running.end()


def test_the_web_serves_the_chat_and_memory(
    server: Server, database: Roles, fake: FakeOpenAI
) -> None:
    token = (
        server.client()
        .post("/api/auth/token/", json={"username": "operator", "password": PASSWORD})
        .json()
    )
    client = server.client(token["token"])
    first, second = (
        client.post("/api/chats/", json={"title": name}).json()["id"] for name in ("Pets", "Other")
    )
    assert client.post(f"/api/chats/{first}/messages/", json={"content": FACT}).status_code == 201
    turn = client.post(
        f"/api/chats/{second}/messages/",
        json={"content": QUESTION},
        headers={"Idempotency-Key": "1"},
    )
    assert turn.status_code == 201
    assert FACT in [memory["content"] for memory in turn.json()["context"]]
    question = f"/api/chats/{second}/messages/{turn.json()['user_message']['id']}/"
    with client.stream(
        "POST",
        f"/api/chats/{second}/messages/",
        json={"content": "And the cat?"},
        headers={"Accept": "text/event-stream"},
    ) as events:
        assert "event: done" in events.read().decode()
    assert client.patch(question, json={"content": "What does Biscuit love?"}).status_code == 200
    assert client.delete(question).status_code == 204
    assert client.get("/api/memory/search/", params={"q": QUESTION}).json()["mode"] == "hybrid"
    database.manage(database.web, "measure_recall", values=settings_of(fake))
    assert database.run("SELECT count(*) > 0 FROM recall_measurements") == [(True,)]
    assert client.patch("/api/memory/", json={"enabled": True}).json()["enabled"] is True
    assert FACT in client.get("/api/memory/export/").text
    assert client.request("DELETE", "/api/memory/", json={"confirm": "operator"}).status_code == 200
    assert client.delete(f"/api/auth/tokens/{token['id']}/").status_code == 204
    assert client.get("/readyz").json()["status"] == "ok"
    assert database.run("SELECT count(*) FROM message_memories") == [(0,)]
    assert "ERROR" not in server.log


@pytest.mark.soak
def test_the_doctor_is_content_with_the_granted_rights(database: Roles) -> None:
    """Run the doctor as the owner, who sees what DATABASE_URL's role may do."""
    urls = {
        "DATABASE_URL": database.url_of(database.web),
        "DATABASE_DIRECT_URL": database.url_of(database.owner),
    }
    report = json.loads(database.manage(database.owner, "rag_doctor", "--json", values=urls))
    checks = {check["name"]: check for check in report["checks"]}
    assert checks["database.rights"]["status"] == "PASS"
    assert database.web in checks["database.rights"]["detail"]
    report = json.loads(database.manage(database.web, "rag_doctor", "--json", values=urls))
    assert {check["name"]: check["status"] for check in report["checks"]}["trap.9"] == "PASS"


@pytest.mark.soak
def test_the_web_serves_the_admin(server: Server) -> None:
    browser = server.client()
    page = browser.get("/admin/login/").text
    form = {
        "username": "operator",
        "password": PASSWORD,
        "next": "/admin/",
        "csrfmiddlewaretoken": csrf(page),
    }
    assert browser.post("/admin/login/", data=form).status_code == 302
    for address in (
        "",
        "auth/user/",
        "auth/group/",
        "chat/standalonechatmessage/",
        "chat/apitoken/",
    ):
        assert browser.get(f"/admin/{address}").status_code == 200, address
    new = {
        "username": "carol",
        "password1": PASSWORD,
        "password2": PASSWORD,
        "usable_password": "true",
    }
    new["csrfmiddlewaretoken"] = csrf(browser.get("/admin/auth/user/add/").text)
    assert browser.post("/admin/auth/user/add/", data=new).status_code == 302
    assert "Internal Server Error" not in server.log
    assert "InsufficientPrivilege" not in server.log


def csrf(page: str) -> str:
    match = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert match
    return match[1]


MESSAGE_COLUMNS = """
    id bigint, user_id bigint, chat_id bigint, role text, content text, created_at timestamptz,
    embedding vector
"""


def test_the_owner_sees_a_build_of_a_superuser(database: Roles) -> None:
    """PostgreSQL hides its table from every role that is not a member of the superuser's."""
    index, error = "idx_standalone_messages_embedding", "standalone_chat_messages is being built"
    build = threading.Thread(target=database.run, args=(f"REINDEX INDEX CONCURRENTLY {index}",))
    with psycopg.connect(database.url) as session:
        session.execute("LOCK TABLE standalone_chat_messages IN ROW EXCLUSIVE MODE")
        build.start()
        wait_for_build(database)
        assert error in database.manage(database.owner, "rag_index", "rebuild", code=1)
        session.rollback()
    build.join()


def test_the_web_may_lock_memory_of_what_it_deletes(database: Roles) -> None:
    """As the sweep of expired conversations does."""
    database.run_as(database.web, "SELECT id FROM message_memories ORDER BY id FOR UPDATE")


NOT_THE_WEBS = [
    "CREATE TABLE mine (id int)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA mine",
    "ALTER TABLE chat_messages ADD COLUMN mine int",
    "ALTER TABLE chat_messages DISABLE TRIGGER ALL",
    "DROP TABLE chat_messages",
    "TRUNCATE chat_messages",
    "DROP INDEX idx_chat_messages_embedding_user",
    "ALTER FUNCTION chat_messages_memory_insert() SECURITY INVOKER",
    """CREATE TRIGGER mine AFTER INSERT ON chat_messages
        EXECUTE FUNCTION chat_messages_memory_insert()""",
    "UPDATE message_memories SET user_id = 1",
    "INSERT INTO message_memories SELECT * FROM message_memories",
    "DELETE FROM message_memories",
    "UPDATE embedding_models SET current = false",
    "DELETE FROM embedding_models",
    "DELETE FROM embedding_usage",
    "DELETE FROM django_migrations",
    "UPDATE auth_permission SET codename = 'mine'",
    "DELETE FROM django_content_type",
    "UPDATE django_admin_log SET change_message = ''",
    "UPDATE audit_log SET who = 'mine'",
    "DELETE FROM audit_log",
    "TRUNCATE audit_log",
    "ALTER TABLE audit_log DISABLE TRIGGER audit_log_is_kept",
    "SELECT * FROM payroll",
    "SELECT * FROM pg_authid",
    "SELECT pg_read_file('PG_VERSION')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SET session_replication_role = replica",
    "SET ROLE {owner}",
    "SET ROLE {backfill}",
]


@pytest.mark.parametrize("statement", NOT_THE_WEBS)
def test_the_web_may_not(statement: str, database: Roles) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        database.run_as(
            database.web, statement.format(owner=database.owner, backfill=database.backfill)
        )


NOT_THE_BACKFILLS = [
    "UPDATE chat_messages SET content = 'mine'",
    "UPDATE standalone_chat_messages SET user_id = 1",
    "INSERT INTO chat_messages (user_id, passage_id, role, content) VALUES (1, 1, 'user', 'mine')",
    "DELETE FROM chat_messages",
    "DELETE FROM message_memories",
    "TRUNCATE message_memories",
    "DELETE FROM audit_log",
    "SELECT password FROM auth_user",
    "SELECT * FROM api_tokens",
    "SELECT * FROM django_session",
    "SELECT * FROM idempotency_keys",
    "SELECT text FROM passages",
    "SELECT title FROM standalone_chats",
    "UPDATE memory_switches SET enabled = true",
    "SELECT * FROM payroll",
    "CREATE TABLE mine (id int)",
    "SET ROLE {owner}",
    "SET ROLE {web}",
]


@pytest.mark.parametrize("statement", NOT_THE_BACKFILLS)
def test_the_backfill_may_not(statement: str, database: Roles) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        database.run_as(database.backfill, statement.format(owner=database.owner, web=database.web))


@pytest.mark.parametrize(
    "function",
    [
        "memory_insert",
        "memory_update",
        "memory_embedding",
        "memory_delete",
        "clear_stale_embedding",
    ],
)
@pytest.mark.parametrize("table", ["chat_messages", "standalone_chat_messages"])
def test_trigger_functions_cannot_be_used_on_other_tables(
    table: str, function: str, database: Roles
) -> None:
    with pytest.raises(
        errors.InsufficientPrivilege, match=f"permission denied for function {table}_{function}"
    ):
        database.run_as(
            database.web,
            f"CREATE TEMPORARY TABLE mine ({MESSAGE_COLUMNS}); "
            "CREATE TRIGGER mine AFTER INSERT ON mine REFERENCING NEW TABLE AS added "
            f"EXECUTE FUNCTION {table}_{function}()",
        )


def test_security_definer_functions_have_a_fixed_search_path(database: Roles) -> None:
    functions = database.run(
        "SELECT proname::text, proconfig, proowner::regrole::text FROM pg_proc WHERE prosecdef "
        "AND pronamespace = 'public'::regnamespace"
    )
    assert len(functions) == 10
    assert {(config[0], owner) for _, config, owner in functions} == {
        ("search_path=pg_catalog, pg_temp", database.owner)
    }


ALICE = """
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email,
        is_staff, is_active, date_joined)
    VALUES ('alice', '!', false, '', '', '', false, true, now());
    INSERT INTO standalone_chats (user_id) SELECT id FROM auth_user WHERE username = 'alice';
    INSERT INTO passages (user_id, reference, text)
    SELECT id, 'Tobit 6', 'The dog.' FROM auth_user WHERE username = 'alice';
"""


@pytest.mark.soak
def test_the_backfills_role_can_embed(database: Roles, fake: FakeOpenAI) -> None:
    database.run("DELETE FROM auth_user WHERE username IN ('alice', 'bob')")
    database.run(ALICE)
    for table, parents in (("standalone_chat", "standalone_chats"), ("chat", "passages")):
        column = "chat_id" if table == "standalone_chat" else "passage_id"
        database.run(
            f"INSERT INTO {table}_messages (user_id, {column}, role, content, created_at) "
            f"SELECT user_id, id, 'user', 'Said in ' || id, now() FROM {parents}"
        )
    database.run("DELETE FROM message_memories")  # as if the triggers came later
    values = settings_of(fake)
    assert "pending" in database.manage(
        database.backfill, "backfill_embeddings", "--dry-run", values=values
    )
    embed = ("backfill_embeddings", "--sleep", "0", "--json")
    done = json.loads(database.manage(database.backfill, *embed, "--retry-failed", values=values))
    assert (done["embedded"], done["pending"], done["failed"]) == (2, 0, 0)
    other = values | {"EMBEDDING_MODEL": "text-embedding-3-large"}
    assert "text-embedding-3-small: 2 messages, current" in database.manage(
        database.backfill, "rag_model", values=values
    )
    database.manage(database.backfill, "rag_model", "use", "--yes", values=other)
    again = json.loads(database.manage(database.backfill, *embed, values=other))
    assert again["embedded"] == 2
    database.manage(database.backfill, "rag_model", "use", "--yes", values=values)
    assert database.run("SELECT sum(calls) > 0 FROM embedding_usage") == [(True,)]


@pytest.mark.soak
def test_the_backfill_works_before_rights_on_a_new_table_are_granted(
    database: Roles, fake: FakeOpenAI
) -> None:
    """The state between migrate and grant_roles: what each user cost is not counted until then."""
    database.run(ALICE.replace("alice", "dora"))
    database.run(
        "INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at) "
        "SELECT c.user_id, c.id, 'user', 'A new word.', now() FROM standalone_chats c "
        "JOIN auth_user u ON u.id = c.user_id WHERE u.username = 'dora'"
    )
    database.run(f"REVOKE ALL ON user_embedding_usage FROM {database.backfill}")
    embed = ("backfill_embeddings", "--sleep", "0", "--json")
    done = json.loads(database.manage(database.backfill, *embed, values=settings_of(fake)))
    assert (done["pending"], done["failed"]) == (0, 0)
    counted = "SELECT count(*) FROM user_embedding_usage JOIN auth_user u ON u.id = user_id"
    assert database.run(f"{counted} WHERE u.username = 'dora'") == [(0,)]
    database.grant()


def test_a_second_run_changes_nothing(database: Roles) -> None:
    before = database.run(GRANTS)
    database.grant()
    assert database.run(GRANTS) == before


def test_the_printed_statements_do_the_same(database: Roles) -> None:
    before = database.run(GRANTS)
    printed = database.grant("--print")
    assert printed.startswith("BEGIN;\n")
    database.run_as(database.owner, printed)
    assert database.run(GRANTS) == before
    assert json.loads(database.grant("--print", "--json"))["missing"] == []


def test_the_web_may_use_tables_of_a_later_migration(database: Roles) -> None:
    database.run_as(
        database.owner,
        "CREATE TABLE later (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, said text)",
    )
    database.run_as(
        database.web, "INSERT INTO later (said) VALUES ('x'); UPDATE later SET said = 'y'"
    )
    assert database.run_as(database.web, "SELECT said FROM later") == [("y",)]
    database.run_as(database.owner, "DROP TABLE later")


@pytest.mark.soak
def test_migrating_back_and_forth_keeps_the_grants(database: Roles) -> None:
    before = database.run(GRANTS)
    database.manage(database.owner, "migrate", "chat", "0001_initial")
    database.grant()  # without memory's tables
    database.manage(database.owner, "migrate")
    database.run_as(database.web, "SELECT count(*) FROM message_memories")
    database.run_as(database.web, "UPDATE standalone_chat_messages SET embedding = NULL")
    database.grant()
    assert database.run(GRANTS) == before


@pytest.mark.soak
def test_it_refuses_roles_that_may_do_everything(database: Roles) -> None:
    grant = ("grant_roles", "--backfill", database.backfill, "--web")
    assert "is a superuser" in database.manage(database.owner, *grant, "verse", code=1)
    assert "who owns the tables" in database.manage(database.owner, *grant, database.owner, code=1)
    assert "must be two roles" in database.manage(database.owner, *grant, database.backfill, code=1)
    error = database.manage(database.web, *grant, database.web, code=1)
    assert f"run this as {database.owner}, not as {database.web}" in error


def test_it_revokes_create_from_public(database: Roles) -> None:
    database.run("GRANT CREATE ON SCHEMA public TO PUBLIC")  # the default before PostgreSQL 15
    database.grant()
    with pytest.raises(errors.InsufficientPrivilege):
        database.run_as(database.web, "CREATE TABLE mine (id int)")
    database.run("ALTER SCHEMA public OWNER TO verse; GRANT CREATE ON SCHEMA public TO PUBLIC")
    try:
        error = database.grant(code=1)
        assert "let verse run REVOKE CREATE ON SCHEMA" in error
        assert f'GRANT CREATE ON SCHEMA "public" TO "{database.owner}"' in error
    finally:
        database.run("ALTER SCHEMA public OWNER TO pg_database_owner")
        database.run("REVOKE CREATE ON SCHEMA public FROM PUBLIC")


def test_before_migrate_it_says_to_migrate(
    django_db_setup: None, django_db_blocker: Any, worker_id: str
) -> None:
    with django_db_blocker.unblock():
        empty = Database(f"empty_{worker_id}")
    done = subprocess.run(
        [sys.executable, "manage.py", "grant_roles", "--web", "a", "--backfill", "b"],
        cwd=ROOT,
        env=clean_environment(DATABASE_URL=empty.url, SECRET_KEY="test"),
        capture_output=True,
        text=True,
    )
    with django_db_blocker.unblock():
        empty.drop()
    assert done.returncode == 1
    assert "run manage.py migrate" in done.stderr


def test_both_roles_see_the_same_status(database: Roles) -> None:
    database.manage(database.web, "rag_rollout", "dark")
    database.run(
        "INSERT INTO log_counts (minute, kind, at_start, count) "
        "VALUES (date_trunc('minute', now()), 'An answer failed', false, 3)"
    )
    of_web, of_backfill = (
        json.loads(database.manage(role, "rag_status", "--json"))
        for role in (database.web, database.backfill)
    )
    assert {name for name in of_web if of_web[name] != of_backfill[name]} <= {"indexes"}  # scans
    assert of_web["rollout"]["state"] == "dark"
    assert of_web["log"]["hour"] == {"An answer failed": 3}
    database.manage(database.web, "rag_rollout", "on")


@pytest.mark.soak
def test_both_roles_may_read_the_figures_of_metrics(database: Roles) -> None:
    show = "from retrieval.telemetry.database_figures import *; print(read(), count_by_index())"
    for role in (database.web, database.backfill):
        assert "Reading(pending=" in database.manage(role, "shell", "-v0", "-c", show)


@pytest.mark.soak
def test_a_worker_as_the_backfills_role_serves_servers_of_the_webs(
    database: Roles, openai_server: FakeOpenAI
) -> None:
    values = {
        "EMBED_QUEUE": "procrastinate",
        "OPENAI_BASE_URL": openai_server.base_url,
        "OPENAI_API_KEY": "sk-test",
        "LLM_BASE_URL": openai_server.base_url,
        "SECRET_KEY": "test",
    }
    database.manage(database.owner, "migrate", values=values)
    database.grant()
    database.run("INSERT INTO auth_user (username, password, is_superuser, first_name, last_name,"
                 " email, is_staff, is_active, date_joined)"
                 " VALUES ('frieda', '!', false, '', '', '', false, true, now())")  # fmt: skip
    token = database.manage(database.web, "create_token", "frieda").strip()
    worker = Worker(values | {"DATABASE_URL": database.url_of(database.backfill)})
    server = Server(values | {"DATABASE_URL": database.url_of(database.web)})
    try:
        client = server.client(token)
        chat = client.post("/api/chats/", json={}).json()["id"]
        path = f"/api/chats/{chat}/messages/"
        assert client.post(path, json={"content": FACT}).status_code == 201
        wait_for(lambda: client.get("/api/memory/").json()["embedded"] == 2)
        wait_for(lambda: database.run("SELECT count(*) FROM procrastinate_jobs") == [(0,)])
        assert "WARNING" not in worker.log + server.log, worker.log + server.log
        assert "ERROR" not in worker.log + server.log, worker.log + server.log
    finally:
        worker.end()
        server.end()


# Commands of docs/roles.md that no other test runs as their role.
COMMANDS = {
    "web": (
        ["rag_rollout"],
        ["rag_doctor", "--list"],
        ["expire_conversations", "--dry-run"],
        ["audit"],
        ["create_token", "operator"],
        ["erase_data", "operator"],
        ["rag_text"],
        ["clear_expired"],
    ),
    "backfill": (["rag_cost_estimate"], ["rag_model"]),
    "owner": (["rag_text"], ["audit", "--purge"], ["rag_rollout"], ["expire_conversations"]),
}


@pytest.mark.soak
@pytest.mark.parametrize(
    ("role", "command"),
    [(role, command) for role, commands in COMMANDS.items() for command in commands],
    ids=lambda part: part if isinstance(part, str) else " ".join(part),
)
def test_each_role_may_run_its_commands(
    role: str, command: list[str], server: Server, database: Roles
) -> None:
    database.manage(getattr(database, role), *command, values={"RETENTION_DAYS": "30"})
