"""rag_doctor on spending, on the server's and the site's settings: each fault is found and mended."""

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
from retrieval.tests.doctor_support import Patient, check_that_it_is_mended

pytestmark = [pytest.mark.newest_schema, pytest.mark.usefixtures("remembering")]


@pytest.mark.parametrize(("spent", "status"), [(4.0, "PASS"), (4.5, "WARN"), (5.5, "FAIL")])
def test_spending_against_the_budget(
    spent: float, status: str, patient: Patient, settings: Settings
) -> None:
    assert patient.find("criterion.6").status is Status.SKIP
    settings.EMBEDDING_BUDGET_USD = 5.0
    patient.run("DELETE FROM embedding_usage")
    patient.run(
        "INSERT INTO embedding_usage VALUES ((now() AT TIME ZONE 'UTC')::date, 'm', 'ok', 1, 1, 1, %s), "
        "(date_trunc('month', now() AT TIME ZONE 'UTC')::date - 1, 'm', 'ok', 1, 1, 1, 99)", spent
    )  # fmt: skip
    if status == "PASS":
        assert patient.find("criterion.6").status is Status.PASS
    else:
        check_that_it_is_mended(patient, "criterion.6", status, settings)
    patient.run("DELETE FROM embedding_usage")


def test_calls_that_all_fail_are_told_by_reason(
    patient: Patient, settings: Settings, remembering: FakeOpenAI
) -> None:
    patient.run("DELETE FROM embedding_usage")
    patient.run(
        "INSERT INTO embedding_usage SELECT (now() AT TIME ZONE 'UTC')::date, 'm', one, n, 1, 0, 0 "
        "FROM (VALUES ('KeyRefused', 3), ('Unavailable', 2)) x(one, n)"
    )
    found = patient.find("embedding.calls")
    assert "3 KeyRefused, 2 Unavailable" in found.detail
    assert found.fix.splitlines()[0].startswith("OPENAI_API_KEY=")
    patient.find("embedding.online", "online")  # what the fix's command runs
    assert patient.find("embedding.calls").status is Status.PASS


def test_online_makes_one_call(
    patient: Patient, settings: Settings, remembering: FakeOpenAI
) -> None:
    assert patient.find("embedding.online").status is Status.SKIP
    before = len(remembering.requests)
    assert patient.find("embedding.online", "online").status is Status.PASS
    assert len(remembering.requests) == before + 1


def test_a_refused_key_is_told_without_being_shown(
    patient: Patient, settings: Settings, remembering: FakeOpenAI
) -> None:
    remembering.embeddings.script(Refuse(401))
    found = patient.find("embedding.online", "online")
    assert found.status is Status.FAIL
    assert found.fix.startswith("OPENAI_API_KEY=")
    assert "sk-test" not in found.detail + found.fix
    runtime.reset()
    assert patient.find("embedding.online", "online").status is Status.PASS


@pytest.mark.parametrize("name", ["checklist.9", "trap.10"])
def test_one_key_for_both_is_warned_of(name: str, patient: Patient, settings: Settings) -> None:
    settings.LLM_API_KEY = settings.OPENAI_API_KEY
    found = check_that_it_is_mended(patient, name, "WARN", settings)
    assert settings.OPENAI_API_KEY not in found.detail + found.fix


SITE: dict[str, tuple[str, dict[str, object]]] = {
    "debug": ("settings.debug", {"DEBUG": True}),
    "any host": ("settings.allowed_hosts", {"ALLOWED_HOSTS": ["*"]}),
    "large pools": ("checklist.11", {"DATABASE_POOL_SIZE": 100, "WEB_CONCURRENCY": 4}),
    "many workers": ("checklist.11", {"DATABASE_POOL_SIZE": 1, "WEB_CONCURRENCY": 250}),
}


@pytest.mark.parametrize("fault", SITE)
def test_a_setting_is_mended(fault: str, patient: Patient, settings: Settings) -> None:
    name, values = SITE[fault]
    assert patient.find(name).status is Status.PASS
    for setting, value in values.items():
        setattr(settings, setting, value)
    check_that_it_is_mended(patient, name, "WARN", settings)


def test_a_short_secret_is_replaced(patient: Patient, settings: Settings, tmp_path: Path) -> None:
    settings.SECRET_KEY = "short"
    found = patient.find("settings.secret_key")
    assert found.status is Status.WARN
    assert "short" not in found.fix
    subprocess.run(found.fix.replace("python", "python3", 1), shell=True, cwd=tmp_path, check=True)
    settings.SECRET_KEY = (tmp_path / ".env").read_text().strip().removeprefix("SECRET_KEY=")
    assert patient.find("settings.secret_key").status is Status.PASS


def test_behind_a_pooler_nothing_is_compared(patient: Patient, settings: Settings) -> None:
    settings.SERVER_DATABASE = settings.SERVER_DATABASE | {"HOST": "pooler.example.com"}
    assert patient.find("checklist.11").status is Status.SKIP


SERVER = {
    "jit for the role": ("database.jit", "WARN", "ALTER ROLE {user} SET jit = on"),
    "read-only database": (
        "database.writable", "FAIL", "ALTER DATABASE {name} SET default_transaction_read_only = on",
    ),
    "read-only role": (
        "database.writable", "FAIL", "ALTER ROLE {user} IN DATABASE {name} SET default_transaction_read_only = on",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", SERVER)
def test_a_setting_of_the_server_is_mended(
    fault: str, patient: Patient, settings: Settings
) -> None:
    name, status, sql = SERVER[fault]
    (user,) = patient.run("SELECT quote_ident(current_user)")[0]
    assert patient.find(name).status is Status.PASS
    patient.run(sql.format(user=user, name=patient.name))
    connection.close()
    check_that_it_is_mended(patient, name, status, settings)
    patient.run(f"ALTER ROLE {user} RESET jit")


def test_a_database_of_another_encoding_is_told_how_to_make_a_new_one(patient: Patient) -> None:
    other = f"{patient.name}_latin"
    with psycopg.connect(patient.url, autocommit=True) as session:
        session.execute(f"DROP DATABASE IF EXISTS {other}")
        session.execute(f"CREATE DATABASE {other} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    connection.close()
    connection.settings_dict["NAME"] = other
    try:
        found = patient.find("database.encoding")
        assert found.status is Status.FAIL
        assert "createdb --template=template0 --encoding=UTF8" in found.fix
        patient.shell(found.fix)
        connection.close()
        connection.settings_dict["NAME"] = f"{other}_utf8"
        assert patient.find("database.encoding").status is Status.PASS
    finally:
        connection.close()
        connection.settings_dict["NAME"] = patient.name
        patient.run(f"DROP DATABASE IF EXISTS {other}_utf8")
        patient.run(f"DROP DATABASE {other}")
