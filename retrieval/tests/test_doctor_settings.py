"""rag_doctor on spending and settings: each fault is reported, and its printed fix works."""

import subprocess
from pathlib import Path

import psycopg
import pytest
from django.db import connection
from pytest_django import Settings

from fake_openai import FakeOpenAI
from fake_openai.behaviours import Refuse
from retrieval import runtime
from retrieval.doctor.report import Status
from retrieval.tests.doctor_support import FaultyDatabase, assert_fix_works

pytestmark = [pytest.mark.newest_schema, pytest.mark.usefixtures("remembering")]


@pytest.mark.parametrize(("spent", "status"), [(4.0, "PASS"), (4.5, "WARN"), (5.5, "FAIL")])
def test_spending_is_compared_with_the_budget(
    spent: float, status: str, faulty: FaultyDatabase, settings: Settings
) -> None:
    assert faulty.check("criterion.7").status is Status.SKIP
    settings.EMBEDDING_BUDGET_USD = 5.0
    faulty.run("DELETE FROM embedding_usage")
    faulty.run(
        """
        INSERT INTO embedding_usage VALUES
            ((now() AT TIME ZONE 'UTC')::date, 'm', 'ok', 1, 1, 1, %s),
            (date_trunc('month', now() AT TIME ZONE 'UTC')::date - 1, 'm', 'ok', 1, 1, 1, 99)
        """,
        spent,
    )
    if status == "PASS":
        assert faulty.check("criterion.7").status is Status.PASS
    else:
        assert_fix_works(faulty, "criterion.7", status, settings)
    faulty.run("DELETE FROM embedding_usage")


def test_failed_calls_are_reported_by_reason(
    faulty: FaultyDatabase, settings: Settings, remembering: FakeOpenAI
) -> None:
    faulty.run("DELETE FROM embedding_usage")
    faulty.run(
        "INSERT INTO embedding_usage "
        "SELECT (now() AT TIME ZONE 'UTC')::date, 'm', outcome, n, 1, 0, 0 "
        "FROM (VALUES ('KeyRefused', 3), ('ServiceUnavailable', 2)) x(outcome, n)"
    )
    finding = faulty.check("checklist.7")
    assert "3 KeyRefused, 2 ServiceUnavailable" in finding.detail
    assert finding.fix.splitlines()[0].startswith("OPENAI_API_KEY=")
    faulty.check("embedding.online", "online")  # what the fix's command runs
    assert faulty.check("checklist.7").status is Status.PASS


def test_online_makes_one_call(
    faulty: FaultyDatabase, settings: Settings, remembering: FakeOpenAI
) -> None:
    assert faulty.check("embedding.online").status is Status.SKIP
    before = len(remembering.requests)
    assert faulty.check("embedding.online", "online").status is Status.PASS
    assert len(remembering.requests) == before + 1


def test_a_refused_key_is_reported_but_not_shown(
    faulty: FaultyDatabase, settings: Settings, remembering: FakeOpenAI
) -> None:
    remembering.embeddings.script(Refuse(401))
    finding = faulty.check("embedding.online", "online")
    assert finding.status is Status.FAIL
    assert finding.fix.startswith("OPENAI_API_KEY=")
    assert "sk-test" not in finding.detail + finding.fix
    runtime.reset()
    assert faulty.check("embedding.online", "online").status is Status.PASS


@pytest.mark.parametrize("name", ["checklist.3", "trap.10"])
def test_one_key_for_both_services_warns(
    name: str, faulty: FaultyDatabase, settings: Settings
) -> None:
    settings.LLM_API_KEY = settings.OPENAI_API_KEY
    finding = assert_fix_works(faulty, name, "WARN", settings)
    assert settings.OPENAI_API_KEY not in finding.detail + finding.fix


def test_the_keys_are_named_by_their_last_four_characters(
    faulty: FaultyDatabase, settings: Settings
) -> None:
    settings.OPENAI_API_KEY, settings.LLM_API_KEY = "sk-embeddings-0abcd", "sk-language-model-0wxyz"
    finding = faulty.check("checklist.3")
    assert finding.detail == "embeddings: key ...abcd, language model: key ...wxyz; they share none"
    settings.LLM_API_KEY = settings.OPENAI_API_KEY
    assert "embeddings: key ...abcd, language model: key ...abcd:" in (
        faulty.check("checklist.3").detail
    )
    settings.OPENAI_API_KEY, settings.LLM_API_KEY = "sk-short-0abcde", ""
    assert faulty.check("checklist.3").detail == (
        "embeddings: a key too short to show, language model: no key; they share none"
    )


SITE: dict[str, tuple[str, dict[str, object]]] = {
    "debug": ("settings.debug", {"DEBUG": True}),
    "any host": ("settings.allowed_hosts", {"ALLOWED_HOSTS": ["*"]}),
    "large pools": ("server.pools", {"DATABASE_POOL_SIZE": 100, "WEB_CONCURRENCY": 4}),
    "two queues": ("settings.embed_queue", {"CELERY_BROKER_URL": "redis://127.0.0.1"}),
    "many workers": ("server.pools", {"DATABASE_POOL_SIZE": 1, "WEB_CONCURRENCY": 250}),
}


@pytest.mark.parametrize("fault", SITE)
def test_the_printed_setting_works(fault: str, faulty: FaultyDatabase, settings: Settings) -> None:
    name, values = SITE[fault]
    assert faulty.check(name).status is Status.PASS
    for setting, value in values.items():
        setattr(settings, setting, value)
    assert_fix_works(faulty, name, "WARN", settings)


def test_a_short_secret_is_replaced(
    faulty: FaultyDatabase, settings: Settings, tmp_path: Path
) -> None:
    settings.SECRET_KEY = "short"
    finding = faulty.check("settings.secret_key")
    assert finding.status is Status.WARN
    assert "short" not in finding.fix
    instruction, command = finding.fix.splitlines()
    assert "in an editor" in instruction
    printed = subprocess.check_output(
        command.replace("python", "python3", 1), shell=True, cwd=tmp_path, text=True
    )
    assert list(tmp_path.iterdir()) == []
    settings.SECRET_KEY = printed.strip().removeprefix("SECRET_KEY=")
    assert faulty.check("settings.secret_key").status is Status.PASS


def test_behind_a_pooler_nothing_is_compared(faulty: FaultyDatabase, settings: Settings) -> None:
    settings.SERVER_DATABASE = settings.SERVER_DATABASE | {"HOST": "pooler.example.com"}
    assert faulty.check("server.pools").status is Status.SKIP


READ_ONLY = "SET default_transaction_read_only = on"
SERVER = {
    "a timeout of the role": (
        "database.timeout",
        "WARN",
        "ALTER ROLE {user} SET statement_timeout = '2min'",
    ),
    "a timeout of the database": (
        "database.timeout",
        "WARN",
        "ALTER DATABASE {name} SET statement_timeout = '59min'",
    ),
    "a timeout of the role in the database": (
        "database.timeout",
        "WARN",
        "ALTER ROLE {user} IN DATABASE {name} SET statement_timeout = '2min'",
    ),
    "jit for the role": ("database.jit", "WARN", "ALTER ROLE {user} SET jit = on"),
    "read-only database": ("database.writable", "FAIL", f"ALTER DATABASE {{name}} {READ_ONLY}"),
    "read-only role": (
        "database.writable",
        "FAIL",
        f"ALTER ROLE {{user}} IN DATABASE {{name}} {READ_ONLY}",
    ),
}


@pytest.mark.parametrize("fault", SERVER)
def test_the_printed_reset_of_a_server_setting_works(
    fault: str, faulty: FaultyDatabase, settings: Settings
) -> None:
    name, status, sql = SERVER[fault]
    (user,) = faulty.run("SELECT quote_ident(current_user)")[0]
    assert faulty.check(name).status is Status.PASS
    faulty.run(sql.format(user=user, name=faulty.name))
    connection.close()
    assert_fix_works(faulty, name, status, settings)
    faulty.run(f"ALTER ROLE {user} RESET jit; ALTER ROLE {user} RESET statement_timeout")
    faulty.run(f"ALTER ROLE {user} IN DATABASE {faulty.name} RESET ALL")
    faulty.run(f"ALTER DATABASE {faulty.name} RESET statement_timeout")


def test_another_encoding_fails_with_commands_for_a_copy(faulty: FaultyDatabase) -> None:
    other = f"{faulty.name}_latin"
    with psycopg.connect(faulty.url, autocommit=True) as session:
        session.execute(f"DROP DATABASE IF EXISTS {other}")
        session.execute(f"CREATE DATABASE {other} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    connection.close()
    connection.settings_dict["NAME"] = other
    try:
        finding = faulty.check("database.encoding")
        assert finding.status is Status.FAIL
        assert "createdb --template=template0 --encoding=UTF8" in finding.fix
        faulty.shell(finding.fix)
        connection.close()
        connection.settings_dict["NAME"] = f"{other}_utf8"
        assert faulty.check("database.encoding").status is Status.PASS
    finally:
        connection.close()
        connection.settings_dict["NAME"] = faulty.name
        faulty.run(f"DROP DATABASE IF EXISTS {other}_utf8")
        faulty.run(f"DROP DATABASE {other}")
