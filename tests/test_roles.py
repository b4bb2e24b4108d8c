"""Three roles of the database: the owner migrates, the web serves, the backfill embeds; each does its part only."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors

from fake_openai import Answer, FakeOpenAI
from tests.databases import Database
from tests.support import ROOT, Server, clean_environment

pytestmark = pytest.mark.newest_schema
FACT = "My dog is called Biscuit and he loves cheese."
QUESTION = "What is my dog called?"
PASSWORD = "a long enough password"
# All that anybody has been granted on tables and columns, and by default.
GRANTS = """
    SELECT relname::text, '', relacl::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
        AND relkind IN ('r', 'S')
    UNION ALL SELECT attrelid::regclass::text, attname::text, attacl::text FROM pg_attribute
        WHERE attacl IS NOT NULL AND NOT attisdropped
    UNION ALL SELECT 'default', defaclobjtype::text, defaclacl::text FROM pg_default_acl ORDER BY 1, 2
"""


class Roles(Database):
    """A database that its owner has migrated, and two more roles who were granted their parts."""

    def __init__(self, name: str, worker: str) -> None:
        super().__init__(name)
        self.owner, self.web, self.backfill = (f"{one}_{worker}" for one in ("own", "web", "fill"))
        self.forget()
        self.run(
            f"CREATE ROLE {self.owner} LOGIN; ALTER DATABASE {name} OWNER TO {self.owner}; CREATE EXTENSION vector"
        )
        self.manage(self.owner, "migrate")

    def url_of(self, role: str) -> str:
        """The database, for this role."""
        return self.url.replace("user=verse", f"user={role}")

    def manage(
        self, role: str, *arguments: str, code: int = 0, values: dict[str, str] | None = None
    ) -> str:
        """What the command says as this role; with ``code`` 1, its last line."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120,
            env=clean_environment(DATABASE_URL=self.url_of(role), SECRET_KEY="test", **(values or {})),
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr.strip().splitlines()[-1] if code else done.stdout

    def grant(self, *options: str, code: int = 0) -> str:
        """``grant_roles`` for the two."""
        given = ("--web", self.web, "--backfill", self.backfill)
        return self.manage(self.owner, "grant_roles", *given, *options, code=code)

    def run_as(self, role: str, sql: str) -> list[tuple[Any, ...]]:
        """The statements' rows; InsufficientPrivilege where it may not."""
        with psycopg.connect(self.url_of(role), autocommit=True) as session:
            cursor = session.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def forget(self) -> None:
        """The roles, of this run or of one that was killed."""
        for role in (self.web, self.backfill, self.owner):
            if self.run("SELECT 1 FROM pg_roles WHERE rolname = %s", role):
                self.run(
                    f"REASSIGN OWNED BY {role} TO verse; DROP OWNED BY {role}; DROP ROLE {role}"
                )

    def drop(self) -> None:
        """The database, then the roles."""
        self.forget()
        super().drop()


@pytest.fixture(scope="module")
def made(django_db_setup: None, django_db_blocker: Any, worker_id: str) -> Iterator[Roles]:
    """Before the grants."""
    with django_db_blocker.unblock():
        database = Roles(f"roles_{worker_id}", worker_id)
        yield database
        database.drop()


@pytest.fixture(scope="module")
def database(made: Roles) -> Roles:
    """After them."""
    said = made.grant(code=1)
    assert f"CREATE ROLE \"{made.web}\" LOGIN PASSWORD '...';" in said
    assert f"CREATE ROLE \"{made.backfill}\" LOGIN PASSWORD '...';" in said
    made.run("CREATE TABLE payroll (salary integer)")  # another application's
    made.run(f"CREATE ROLE {made.web} LOGIN; CREATE ROLE {made.backfill} LOGIN")
    assert "Granted to" in made.grant()
    return made


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeOpenAI]:
    """For the language model and for embeddings."""
    with FakeOpenAI() as server:
        server.chat.default = Answer("I see.")
        yield server


def settings_of(fake: FakeOpenAI) -> dict[str, str]:
    """Memory is on."""
    return {
        "LLM_BASE_URL": fake.base_url,
        "OPENAI_BASE_URL": fake.base_url,
        "OPENAI_API_KEY": "sk-test-0123456789",
    }


@pytest.fixture(scope="module")
def server(database: Roles, fake: FakeOpenAI) -> Iterator[Server]:
    """The whole chat, as the web's role."""
    database.manage(
        database.web, "createsuperuser", "--noinput", "--username", "operator", "--email", "",
        values={"DJANGO_SUPERUSER_PASSWORD": PASSWORD},
    )  # fmt: skip
    made = Server({"DATABASE_URL": database.url_of(database.web), **settings_of(fake)})
    yield made
    made.end()


def test_the_web_serves_the_chat_and_memory(server: Server, database: Roles) -> None:
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
    assert FACT in [one["content"] for one in turn.json()["context"]]
    said = f"/api/chats/{second}/messages/{turn.json()['user_message']['id']}/"
    with client.stream("POST", f"/api/chats/{second}/messages/", json={"content": "And the cat?"},
                       headers={"Accept": "text/event-stream"}) as events:  # fmt: skip
        assert "event: done" in events.read().decode()
    assert client.patch(said, json={"content": "What does Biscuit love?"}).status_code == 200
    assert client.delete(said).status_code == 204
    assert client.get("/api/memory/search/", params={"q": QUESTION}).json()["mode"] == "hybrid"
    assert client.patch("/api/memory/", json={"enabled": True}).json()["enabled"] is True
    assert FACT in client.get("/api/memory/export/").text
    assert client.request("DELETE", "/api/memory/", json={"confirm": "operator"}).status_code == 200
    assert client.delete(f"/api/auth/tokens/{token['id']}/").status_code == 204
    assert client.get("/readyz").json() == {"status": "ok"}
    assert database.run("SELECT count(*) FROM message_memories") == [(0,)]
    assert "ERROR" not in server.log


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
    """The form's token."""
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert found
    return found[1]


MESSAGES_LIKE = "id bigint, user_id bigint, chat_id bigint, role text, content text, created_at timestamptz, embedding vector"
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
    "CREATE TRIGGER mine AFTER INSERT ON chat_messages EXECUTE FUNCTION chat_messages_memory_insert()",
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
def test_nobody_puts_the_triggers_functions_on_a_table_of_their_own(
    table: str, function: str, database: Roles
) -> None:
    with pytest.raises(
        errors.InsufficientPrivilege, match=f"permission denied for function {table}_{function}"
    ):
        database.run_as(
            database.web,
            f"CREATE TEMPORARY TABLE mine ({MESSAGES_LIKE}); CREATE TRIGGER mine AFTER INSERT ON mine "
            f"REFERENCING NEW TABLE AS added EXECUTE FUNCTION {table}_{function}()",
        )


def test_the_functions_with_their_owners_rights_have_a_fixed_search_path(database: Roles) -> None:
    found = database.run(
        "SELECT proname::text, proconfig, proowner::regrole::text FROM pg_proc WHERE prosecdef "
        "AND pronamespace = 'public'::regnamespace"
    )
    assert len(found) == 10
    assert {(config[0], owner) for _, config, owner in found} == {
        ("search_path=pg_catalog, pg_temp", database.owner)
    }


def test_the_backfills_role_can_do_its_part(database: Roles, fake: FakeOpenAI) -> None:
    database.run("DELETE FROM auth_user WHERE username IN ('alice', 'bob')")
    database.run("INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email, is_staff, "
                 "is_active, date_joined) VALUES ('alice', '!', false, '', '', '', false, true, now())")  # fmt: skip
    database.run(
        "INSERT INTO standalone_chats (user_id) SELECT id FROM auth_user WHERE username = 'alice'"
    )
    database.run("INSERT INTO passages (user_id, reference, text) SELECT id, 'Tobit 6', 'The dog.' FROM auth_user "
                 "WHERE username = 'alice'")  # fmt: skip
    for table, parents in (("standalone_chat", "standalone_chats"), ("chat", "passages")):
        column = "chat_id" if table == "standalone_chat" else "passage_id"
        database.run(f"INSERT INTO {table}_messages (user_id, {column}, role, content, created_at) "
                     f"SELECT user_id, id, 'user', 'Said in ' || id, now() FROM {parents}")  # fmt: skip
    database.run("DELETE FROM message_memories")  # as messages from before the triggers
    values = settings_of(fake)
    assert "pending" in database.manage(
        database.backfill, "backfill_embeddings", "--dry-run", values=values
    )
    done = json.loads(database.manage(
        database.backfill, "backfill_embeddings", "--sleep", "0", "--retry-failed", "--json", values=values
    ))  # fmt: skip
    assert (done["embedded"], done["pending"], done["failed"]) == (2, 0, 0)
    other = values | {"EMBEDDING_MODEL": "text-embedding-3-large"}
    assert "text-embedding-3-small: 2 messages, current" in database.manage(
        database.backfill, "rag_model", values=values
    )
    database.manage(database.backfill, "rag_model", "use", "--yes", values=other)
    again = json.loads(
        database.manage(
            database.backfill, "backfill_embeddings", "--sleep", "0", "--json", values=other
        )
    )
    assert again["embedded"] == 2
    database.manage(database.backfill, "rag_model", "use", "--yes", values=values)
    assert database.run("SELECT sum(calls) > 0 FROM embedding_usage") == [(True,)]


def test_run_again_it_changes_nothing(database: Roles) -> None:
    before = database.run(GRANTS)
    database.grant()
    assert database.run(GRANTS) == before


def test_what_it_prints_does_the_same(database: Roles) -> None:
    before = database.run(GRANTS)
    printed = database.grant("--print")
    assert printed.startswith("BEGIN;\n")
    database.run_as(database.owner, printed)
    assert database.run(GRANTS) == before
    assert json.loads(database.grant("--print", "--json"))["missing"] == []


def test_the_web_goes_on_with_what_a_later_migrate_makes(database: Roles) -> None:
    database.run_as(
        database.owner,
        "CREATE TABLE later (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, said text)",
    )
    database.run_as(
        database.web, "INSERT INTO later (said) VALUES ('x'); UPDATE later SET said = 'y'"
    )
    assert database.run_as(database.web, "SELECT said FROM later") == [("y",)]
    database.run_as(database.owner, "DROP TABLE later")


def test_it_goes_back_and_forth_between_the_grants(database: Roles) -> None:
    before = database.run(GRANTS)
    database.manage(database.owner, "migrate", "chat", "0001_initial")
    database.grant()  # without memory's tables
    database.manage(database.owner, "migrate")
    database.run_as(database.web, "SELECT count(*) FROM message_memories")
    database.run_as(database.web, "UPDATE standalone_chat_messages SET embedding = NULL")
    database.grant()
    assert database.run(GRANTS) == before


def test_it_refuses_roles_that_may_do_everything(database: Roles) -> None:
    grant = ("grant_roles", "--backfill", database.backfill, "--web")
    assert "is a superuser" in database.manage(database.owner, *grant, "verse", code=1)
    assert "who owns the tables" in database.manage(database.owner, *grant, database.owner, code=1)
    assert "must be two roles" in database.manage(database.owner, *grant, database.backfill, code=1)
    said = database.manage(database.web, *grant, database.web, code=1)
    assert f"run this as {database.owner}, not as {database.web}" in said


def test_where_anybody_may_make_tables_it_ends_that(database: Roles) -> None:
    database.run(
        "GRANT CREATE ON SCHEMA public TO PUBLIC"
    )  # as in databases that were made before PostgreSQL 15
    database.grant()
    with pytest.raises(errors.InsufficientPrivilege):
        database.run_as(database.web, "CREATE TABLE mine (id int)")
    database.run("ALTER SCHEMA public OWNER TO verse; GRANT CREATE ON SCHEMA public TO PUBLIC")
    try:
        said = database.grant(code=1)
        assert "let verse run REVOKE CREATE ON SCHEMA" in said
        assert f'GRANT CREATE ON SCHEMA "public" TO "{database.owner}"' in said
    finally:
        database.run(
            "ALTER SCHEMA public OWNER TO pg_database_owner; REVOKE CREATE ON SCHEMA public FROM PUBLIC"
        )


def test_before_migrate_it_says_so(
    django_db_setup: None, django_db_blocker: Any, worker_id: str
) -> None:
    with django_db_blocker.unblock():
        empty = Database(f"empty_{worker_id}")
    done = subprocess.run(
        [sys.executable, "manage.py", "grant_roles", "--web", "a", "--backfill", "b"], cwd=ROOT, text=True,
        env=clean_environment(DATABASE_URL=empty.url, SECRET_KEY="test"), capture_output=True,
    )  # fmt: skip
    with django_db_blocker.unblock():
        empty.drop()
    assert done.returncode == 1
    assert "run manage.py migrate" in done.stderr
