"""The command rag_doctor: its output, its exit code, and that it cannot harm a live database."""

import importlib
import json
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import InternalError, connection
from pytest_django import Settings

from retrieval.doctor import criteria
from retrieval.doctor import examine as examine_module
from retrieval.doctor.database import limited_transaction
from retrieval.doctor.examine import examine
from retrieval.doctor.registry import all_checks
from retrieval.doctor.report import Check, Finding, Status, passed
from retrieval.queries import execute
from retrieval.tests.doctor_support import FaultyDatabase
from tests.support import ROOT, clean_environment

pytestmark = [pytest.mark.newest_schema, pytest.mark.usefixtures("remembering")]
IDS = [*(f"criterion.{n}" for n in range(1, 8)), *(f"checklist.{n}" for n in range(1, 13)),
       *(f"trap.{n}" for n in range(1, 27))]  # fmt: skip
MIGRATION = """
from django.db import migrations
class Migration(migrations.Migration):
    dependencies = [("chat", "{before}")]
    operations = [migrations.RunSQL("SELECT 1")]
"""

OWN_LOCKS = "SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation'"


def test_a_healthy_database_passes(faulty: FaultyDatabase, settings: Settings) -> None:
    settings.EMBEDDING_BUDGET_USD = 5.0
    out = StringIO()
    call_command(
        "rag_doctor", "--json", "--online", "--isolation", stdout=out
    )  # a CommandError would be exit 1
    checks = {check["name"]: check for check in json.loads(out.getvalue())["checks"]}
    assert list(checks)[: len(IDS)] == IDS
    assert all(set(check) == {"name", "status", "detail", "fix"} for check in checks.values())
    by_status = {
        status: {name for name, check in checks.items() if check["status"] == status}
        for status in ("WARN", "FAIL", "SKIP")
    }
    by_hand = {"checklist.1", "checklist.10", "checklist.12", "trap.16", "trap.20", "trap.24"}
    info = {"trap.2", "trap.15", "trap.22", "trap.26", "checklist.4", "work.now"}
    azure = {"trap.21"}
    assert by_status == {"WARN": set(), "FAIL": set(), "SKIP": by_hand | info | azure}
    assert all(checks[name]["detail"].startswith("by hand: ") for name in by_hand)
    assert all(checks[name]["detail"].startswith("info: ") for name in info)
    assert all(check["detail"] for check in checks.values())
    assert all((not check["fix"]) is (check["status"] == "PASS") for check in checks.values())


def test_list_names_each_check_and_what_it_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine_module, "examine", None)  # runs none
    out = StringIO()
    call_command("rag_doctor", "--list", stdout=out)
    listed = dict(line.split(maxsplit=1) for line in out.getvalue().splitlines())
    assert list(listed) == [check.name for check in all_checks()]
    assert listed["trap.1"] == "Sizes of the newest vectors of each table."
    assert listed["trap.2"] == "Nothing: advice."
    assert all(len(text) <= 100 for text in listed.values())


def test_the_printed_rehearsal_of_a_restore_works(faulty: FaultyDatabase) -> None:
    """As the pages' roles: ``verse`` may read the tables, ``verse-admin`` may create a database."""
    (backup,) = [check for check in all_checks() if check.name == "checklist.1"]
    faulty.run("DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN IN ROLE pg_read_all_data")
    params = connection.get_connection_params()
    lines = [*(f"{name}={params[name]}" for name in ("host", "port")), f"dbname={faulty.name}"]
    users = {"verse": "reader", "verse-admin": params["user"]}
    services = "\n".join(
        line for name, user in users.items() for line in (f"[{name}]", *lines, f"user={user}")
    )
    faulty.run("DROP DATABASE IF EXISTS verse_restored")
    faulty.shell(
        f"unset PGHOST PGPORT PGUSER; echo '{services}' > services; "
        f"export PGSERVICEFILE=$PWD/services\n{backup.run().fix}"
    )
    restored = faulty.url.replace(faulty.name, "verse_restored")
    with psycopg.connect(restored) as session:
        copied = session.execute("SELECT count(*) FROM chat_messages").fetchall()
    assert copied == faulty.run("SELECT count(*) FROM chat_messages")
    faulty.run("DROP DATABASE verse_restored")
    faulty.run("DROP ROLE reader")


def test_every_id_of_the_guide_has_a_text_and_a_check() -> None:
    assert [*criteria.CRITERIA, *criteria.CHECKLIST, *criteria.TRAPS] == IDS
    names = [check.name for check in all_checks()]
    assert len(names) == len(set(names))
    assert names[: len(IDS)] == IDS


def test_without_json_it_prints_lines_and_counts(
    faulty: FaultyDatabase, settings: Settings
) -> None:
    out, failure = StringIO(), pytest.raises(CommandError)
    faulty.run("ALTER TABLE chat_messages DISABLE TRIGGER memory_delete")
    with failure as error:
        call_command("rag_doctor", stdout=out)
    lines = out.getvalue().splitlines()
    assert lines[0] == "Success criteria:"
    place = next(n for n, line in enumerate(lines) if line.startswith("  FAIL  checklist.5"))
    assert lines[place + 2].strip() == (
        'ALTER TABLE "chat_messages" ENABLE TRIGGER "memory_delete";'
    )
    assert lines[-1].endswith("SKIP")
    assert " 1 FAIL, " in lines[-1]
    assert str(error.value).startswith("1 of ")
    assert "Secret number" not in out.getvalue()
    faulty.fix_all(settings)


def test_the_report_is_a_page_to_fill_in(faulty: FaultyDatabase, settings: Settings) -> None:
    out = StringIO()
    call_command("rag_doctor", "--report", stdout=out)
    page = out.getvalue()
    assert page.startswith("# Verse in production, 20")
    assert f"| Database | {faulty.name} |" in page
    assert "| Who is on call, and how to reach them |  |" in page
    assert page.count("\n| criterion.") == 7
    assert "| database.version | PASS | PostgreSQL " in page
    tables = [line for line in page.splitlines()[1:] if line]
    assert all(line.startswith("| ") and line.endswith(" |") for line in tables)
    assert not [word for word in (settings.OPENAI_API_KEY, "Secret number") if word in page]


def doctor(url: str, root: Path = ROOT, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "manage.py", *(arguments or ("rag_doctor", "--json"))],
        cwd=root,
        env=clean_environment(DATABASE_URL=url, SECRET_KEY="test"),
        text=True,
        capture_output=True,
    )


def test_an_unreachable_database_is_reported_in_one_line() -> None:
    ended = doctor("postgresql://127.0.0.1:1/nowhere")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.strip().splitlines()) == 1


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The chat's migrations and one of a later version, which cannot be undone. Its path."""
    shutil.copytree(ROOT / "chat/migrations", tmp_path / "later_migrations")
    last = max(path.stem for path in (ROOT / "chat/migrations").glob("0*.py"))
    path = tmp_path / "later_migrations/0999_later.py"
    path.write_text(MIGRATION.format(before=last))
    monkeypatch.syspath_prepend(str(tmp_path))
    return path


def test_only_the_later_version_can_undo_its_migration(
    faulty: FaultyDatabase, later: Path, settings: Settings
) -> None:
    settings.MIGRATION_MODULES = {"chat": "later_migrations"}
    closed = faulty.check("criterion.4")
    assert closed.status is Status.FAIL
    assert "0999_later" in closed.detail
    later.write_text(later.read_text().replace('"SELECT 1"', '"SELECT 1", "SELECT 1"'))
    for name in [name for name in sys.modules if name.startswith("later_migrations")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    assert faulty.check("criterion.4").status is Status.PASS

    call_command("migrate", verbosity=0)
    settings.MIGRATION_MODULES = {}
    finding = faulty.check("trap.17")
    assert (finding.status, faulty.check("criterion.4").status) == (Status.FAIL, Status.FAIL)
    settings.MIGRATION_MODULES = {"chat": "later_migrations"}  # the later version
    faulty.apply_fix(finding, settings)
    settings.MIGRATION_MODULES = {}
    assert faulty.check("trap.17").status is Status.PASS


def test_without_memory_it_says_to_migrate(faulty: FaultyDatabase, settings: Settings) -> None:
    call_command("migrate", "chat", "0001_initial", verbosity=0)
    connection.close()
    with pytest.raises(CommandError, match="checks failed"):
        call_command("rag_doctor", stdout=StringIO())
    assert {
        faulty.check(name).fix for name in ("trap.13", "trap.19", "checklist.5", "checklist.9")
    } == {"python manage.py migrate"}
    faulty.apply_fix(faulty.check("checklist.5"), settings)
    faulty.apply_fix(faulty.check("checklist.9"), settings)
    out = StringIO()
    call_command("rag_doctor", stdout=out)
    assert " 0 FAIL" in out.getvalue()


def test_a_check_can_neither_write_nor_take_long(faulty: FaultyDatabase) -> None:
    def takes_long() -> Finding:
        execute("SET LOCAL statement_timeout = '50ms'; SELECT pg_sleep(10)")
        return passed("")

    def writes() -> Finding:
        execute("DELETE FROM auth_user")
        return passed("")

    finding = examine(Check("long", takes_long), set())
    assert (finding.status, finding.detail) == (Status.WARN, "took longer than 30s: no result")
    with pytest.raises(InternalError, match="read-only"):
        examine(Check("writes", writes), set())


def test_a_role_without_rights_is_asked_to_run_it_as_owner(faulty: FaultyDatabase) -> None:
    faulty.run(
        "DROP ROLE IF EXISTS doctor_reader; CREATE ROLE doctor_reader; SET ROLE doctor_reader"
    )
    try:
        assert "run rag_doctor as the tables' owner" in faulty.check("checklist.9").detail
        assert faulty.check("trap.6").status is Status.SKIP
    finally:
        faulty.run("RESET ROLE; DROP ROLE doctor_reader")


def test_it_holds_only_access_share_locks(faulty: FaultyDatabase) -> None:
    modes: set[str] = set()
    for check in all_checks():
        if check.in_transaction:
            with limited_transaction():
                check.run()
                modes |= {mode for (mode,) in faulty.run(OWN_LOCKS)}
    assert modes == {"AccessShareLock"}
