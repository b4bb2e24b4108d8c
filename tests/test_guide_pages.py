"""The operators' pages, without running them: blocks, mistakes, lengths, the doctor's sentences."""

import importlib
import re
from collections import Counter

import pytest
from django.core.management import get_commands

from retrieval.doctor.registry import all_checks
from tests import compose
from tests.edit_env import edit
from tests.guide import same
from tests.pages import OPERATION, ROLLOUT, RUN, blocks_of
from tests.support import ROOT

DOCS = ROOT / "docs"
PAGES = [DOCS / f"{name}.md" for name in ROLLOUT + OPERATION]
MAX_WORDS = 2500  # of the deployment guide's main page
# Why blocks are not run, and how many; no other reason is allowed.
REASONS = {"cloud console": 1, "installs": 1}
# No block changes .env: a line that is appended may join the last one, or hide another setting.
EDITS_ENV = r">>?\s*\.env\b|sed [^|\n]*\.env\b"
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


def test_blocks_are_skipped_only_for_known_reasons() -> None:
    reasons = Counter(block.reason for page in PAGES for block in blocks_of(page) if block.reason)
    print(f"{reasons.total()} blocks are not run: {dict(reasons)}")  # noqa: T201 # for pytest -rP
    assert reasons == REASONS


def test_all_kinds_of_blocks_are_run_but_output_and_others_files() -> None:
    others = {block.kind for page in PAGES for block in blocks_of(page)} - RUN
    assert others == {"text", "crontab", "ini"}  # the last is PgBouncer's


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
        re.findall(r"^\| `(\d{4}_\w+)` \|", (DOCS / "migration-locks.md").read_text(), re.MULTILINE)
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


def test_no_page_runs_commands_by_a_service_that_migrates_first() -> None:
    """`docker compose run web` starts what web depends on: the service migrate."""
    assert "migrate" in compose.services()["web"]["depends_on"]
    assert "migrate" not in compose.services()["migrate"]["depends_on"]
    for page in DOCS.rglob("*.md"):
        assert "compose run --rm web" not in page.read_text(), page.name


def test_each_step_has_a_row_and_what_it_names_exists() -> None:
    text = (DOCS / "each-step.md").read_text()
    rows = re.findall(r"^\| (\d+) \| .+ \| (.+) \|$", text, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 131))
    names = {name for _, shown in rows for name in re.findall(r"`([a-z]+\.[a-z0-9]+)`", shown)}
    assert names - {check.name for check in all_checks()} == set()
    shown = [re.match(r"`((?:rag|enable|backfill|grant)_\w+)", shown) for _, shown in rows]
    commands = {match[1] for match in shown if match}
    assert commands - set(get_commands()) == set()
    files = {name for _, shown in rows for name in re.findall(r"`(deploy/[\w/.]+yaml)`", shown)}
    assert files
    assert all((ROOT / name).exists() for name in files)


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


def test_the_main_page_is_short() -> None:
    assert len((DOCS / "deployment.md").read_text().split()) < MAX_WORDS


def test_no_block_changes_env_with_the_shell() -> None:
    for page in PAGES:
        for block in blocks_of(page):
            assert not re.search(EDITS_ENV, block.text), f"{page.name}, line {block.line}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("A=1\nB=2", "A=1\nB=3\nC=\n"),
        ("B=1\nA=1\n", "B=3\nA=1\nC=\n"),
        ("AB=1", "AB=1\nB=3\nC=\n"),
        ("", "B=3\nC=\n"),
    ],
)
def test_settings_are_edited_as_by_an_editor(before: str, after: str) -> None:
    assert edit(before, "B=3\nC=\n") == after
