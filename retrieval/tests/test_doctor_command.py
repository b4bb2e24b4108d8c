"""rag_doctor as a command: what it prints, how it ends, what it cannot do to a live database."""

import importlib
import json
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import InternalError, connection
from pytest_django import Settings

from retrieval.doctor import criteria
from retrieval.doctor.examine import examine
from retrieval.doctor.queries import execute, limited_transaction
from retrieval.doctor.registry import all_checks
from retrieval.doctor.report import Check, Finding, Status, passed
from retrieval.tests.doctor_support import Patient
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


def test_a_healthy_database_passes(patient: Patient, settings: Settings) -> None:
    settings.EMBEDDING_BUDGET_USD = 5.0
    out = StringIO()
    call_command(
        "rag_doctor", "--json", "--online", "--isolation", stdout=out
    )  # a CommandError would be exit 1
    found = {one["name"]: one for one in json.loads(out.getvalue())["checks"]}
    assert list(found)[: len(IDS)] == IDS
    assert all(set(one) == {"name", "status", "detail", "fix"} for one in found.values())
    assert {name for name, one in found.items() if one["status"] in ("FAIL", "WARN")} == set()
    by_hand = {"checklist.10", "trap.16", "trap.20", "trap.24"}
    info = {"trap.2", "trap.15", "trap.22", "trap.26", "work.now"}
    azure = {"trap.21"}
    assert {
        name for name, one in found.items() if one["status"] == "SKIP"
    } == by_hand | info | azure
    assert all(found[name]["detail"].startswith("by hand: ") for name in by_hand)
    assert all(found[name]["detail"].startswith("info: ") for name in info)
    assert all(one["detail"] for one in found.values())
    assert all(not one["fix"] for one in found.values() if one["status"] == "PASS")


def test_each_id_of_the_guide_has_its_words_and_its_check() -> None:
    assert [*criteria.CRITERIA, *criteria.CHECKLIST, *criteria.TRAPS] == IDS
    names = [one.name for one in all_checks()]
    assert len(names) == len(set(names))
    assert names[: len(IDS)] == IDS


def test_for_people_it_is_a_list_with_a_sum(patient: Patient, settings: Settings) -> None:
    out, said = StringIO(), pytest.raises(CommandError)
    patient.run("ALTER TABLE chat_messages DISABLE TRIGGER memory_delete")
    with said as error:
        call_command("rag_doctor", stdout=out)
    lines = out.getvalue().splitlines()
    assert lines[0] == "Success criteria:"
    place = next(n for n, line in enumerate(lines) if line.startswith("  FAIL  checklist.6"))
    assert lines[place + 2].strip() == (
        'ALTER TABLE "chat_messages" ENABLE TRIGGER "memory_delete";'
    )
    assert lines[-1].endswith("SKIP")
    assert " 1 FAIL, " in lines[-1]
    assert str(error.value).startswith("1 of ")
    assert "Secret number" not in out.getvalue()
    patient.mend_all(settings)


def doctor(url: str, root: Path = ROOT, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command as it is given."""
    return subprocess.run(
        [sys.executable, "manage.py", *(arguments or ("rag_doctor", "--json"))], cwd=root, text=True,
        capture_output=True, env=clean_environment(DATABASE_URL=url, SECRET_KEY="test"),
    )  # fmt: skip


def test_a_database_that_is_not_there_is_one_line() -> None:
    ended = doctor("postgresql://127.0.0.1:1/nowhere")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.strip().splitlines()) == 1


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The chat's migrations with one more, which has no way back; as a later version would have them."""
    shutil.copytree(ROOT / "chat/migrations", tmp_path / "later_migrations")
    last = max(path.stem for path in (ROOT / "chat/migrations").glob("0*.py"))
    path = tmp_path / "later_migrations/0999_later.py"
    path.write_text(MIGRATION.format(before=last))
    monkeypatch.syspath_prepend(str(tmp_path))
    return path


def test_the_way_back_from_a_later_version_is_that_version_s(
    patient: Patient, later: Path, settings: Settings
) -> None:
    settings.MIGRATION_MODULES = {"chat": "later_migrations"}
    closed = patient.find("criterion.7")
    assert closed.status is Status.FAIL
    assert "0999_later" in closed.detail
    later.write_text(later.read_text().replace('"SELECT 1"', '"SELECT 1", "SELECT 1"'))
    for name in [one for one in sys.modules if one.startswith("later_migrations")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    assert patient.find("criterion.7").status is Status.PASS

    call_command("migrate", verbosity=0)
    settings.MIGRATION_MODULES = {}
    found = patient.find("trap.17")
    assert (found.status, patient.find("criterion.7").status) == (Status.FAIL, Status.FAIL)
    settings.MIGRATION_MODULES = {"chat": "later_migrations"}  # the later version
    patient.mend(found, settings)
    settings.MIGRATION_MODULES = {}
    assert patient.find("trap.17").status is Status.PASS


def test_before_memory_is_added_it_says_what_to_do(patient: Patient, settings: Settings) -> None:
    call_command("migrate", "chat", "0001_initial", verbosity=0)
    connection.close()
    with pytest.raises(CommandError, match="checks failed"):
        call_command("rag_doctor", stdout=StringIO())
    assert {
        patient.find(name).fix
        for name in ("checklist.3", "checklist.5", "checklist.7", "criterion.1")
    } == {"python manage.py migrate"}
    patient.mend(patient.find("checklist.7"), settings)
    patient.mend(patient.find("criterion.1"), settings)
    out = StringIO()
    call_command("rag_doctor", stdout=out)
    assert " 0 FAIL" in out.getvalue()


def test_a_check_can_neither_write_nor_take_long(patient: Patient) -> None:
    def takes_long() -> Finding:
        execute("SET LOCAL statement_timeout = '50ms'; SELECT pg_sleep(10)")
        return passed("")

    def writes() -> Finding:
        execute("DELETE FROM auth_user")
        return passed("")

    found = examine(Check("long", takes_long), set())
    assert (found.status, found.detail) == (Status.WARN, "took longer than 30s: no result")
    with pytest.raises(InternalError, match="read-only"):
        examine(Check("writes", writes), set())


def test_a_role_that_may_not_read_is_told_so(patient: Patient) -> None:
    patient.run(
        "DROP ROLE IF EXISTS doctor_reader; CREATE ROLE doctor_reader; SET ROLE doctor_reader"
    )
    try:
        assert "run rag_doctor as the tables' owner" in patient.find("criterion.1").detail
        assert patient.find("trap.6").status is Status.SKIP
    finally:
        patient.run("RESET ROLE; DROP ROLE doctor_reader")


def test_it_holds_no_lock_but_a_reader_s(patient: Patient) -> None:
    """Looked at from inside each check's transaction, at its end."""
    modes: set[str] = set()
    for check in all_checks():
        if check.in_transaction:
            with limited_transaction():
                check.run()
                modes |= {mode for (mode,) in patient.run(OWN_LOCKS)}
    assert modes == {"AccessShareLock"}
