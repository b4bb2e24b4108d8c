"""The docs are right: commands print what is shown, names and links exist."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from psycopg import sql
from pytest_django import DjangoDbBlocker, Settings
from rest_framework import exceptions

from chat import errors
from chat.samples.loading import load
from embedded_postgres.programs import bin_folder
from fake_openai import FakeOpenAI
from retrieval import runtime
from retrieval.backfill import backfill
from retrieval.queries import rows
from tests.pages import API, BLOCK, OPERATION, ROLLOUT, Block, blocks_of
from tests.support import (
    PATIENCE_S,
    ROOT,
    Server,
    clean_environment,
    database_url,
    serve_test_database,
)

pytestmark = pytest.mark.newest_schema
ALL = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# tests/test_guide.py runs these.
GUIDES = {ROOT / "docs" / f"{name}.md" for name in ROLLOUT + OPERATION}
PAGES = [page for page in ALL if page.parent.name != "decisions"]
INDEXES = ("operations", "developers", "api")
# Each session is one shell on an empty database: a page, or the pages of the API in order.
API_PAGES = [ROOT / "docs" / f"{name}.md" for name in API]
SESSIONS = [API_PAGES, *([page] for page in PAGES if page not in API_PAGES)]
# Why blocks are not run, and how many; no other reason is allowed.
REASONS = {
    "serves until stopped": 3,
    "installs": 1,
    "needs your own key": 1,
    "needs your own database": 2,
    "needs a container engine": 3,
    "needs a cluster": 2,
    "needs a replica": 1,
    "needs a second checkout": 1,
}
METRICS_TOKEN = "a-long-random-text"  # docs/observability.md
DOCUMENTED = "http://127.0.0.1:8000"
PASSWORD = re.compile(r"^Sign in as demo, password (\S+)$", re.MULTILINE)
COMPARED = {"status", "code", "role"}  # values that are compared; others differ between runs
BOUNDARY = "=== end of block ==="
FOLDERS = "verse|chat|retrieval|pooled_postgres|embedded_postgres|fake_openai|docs|tests"


def commands_of(pages: list[Path]) -> list[Block]:
    """The blocks that this test runs."""
    blocks = [block for page in pages if page not in GUIDES for block in blocks_of(page)]
    return [block for block in blocks if block.kind == "sh" and block.reason is None]


def shape(value: Any, name: str = "") -> Any:
    """What two JSON values must have in common: names, list order, COMPARED values."""
    if isinstance(value, dict):
        return {key: shape(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return value if name in COMPARED else "…"


def loose(output: str) -> list[str]:
    """The output's lines without what differs between runs; equal lines once."""
    lines = []
    for line in output.splitlines():
        try:
            lines.append(json.dumps(shape(json.loads(line.removeprefix("data: ")))))
        except ValueError:
            lines.append(re.sub(r"\d+", "0", line.strip()))
    return list(dict.fromkeys(line for line in lines if line not in {"", "…"}))


def environment() -> dict[str, str]:
    """The commands' environment: this test's database, PostgreSQL's programs."""
    path = os.pathsep.join((str(bin_folder(16)), os.environ["PATH"]))
    values = clean_environment(DATABASE_URL=database_url(connection), SECRET_KEY="test")
    return values | {"PATH": path}


def run(blocks: list[Block], server: Server) -> list[str]:
    """The output of each block. A single shell, so that later blocks know earlier variables."""
    script = f"\nprintf '\\n{BOUNDARY}\\n'\n".join(block.text for block in blocks)
    script = script.replace(DOCUMENTED, server.url).replace(
        ".venv/bin/python", shlex.quote(sys.executable)
    )
    result = subprocess.run(
        ["bash", "-u", "-c", script],
        cwd=ROOT,
        env=environment(),
        text=True,
        timeout=5 * PATIENCE_S,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout.split(BOUNDARY)


SEQUENCES = """
    SELECT s.relname, t.relname
    FROM pg_class s JOIN pg_depend d ON d.objid = s.oid AND d.deptype IN ('a', 'i')
    JOIN pg_class t ON t.oid = d.refobjid
    WHERE s.relkind = 'S' AND d.classid = 'pg_class'::regclass
"""


def restart_sequences() -> None:
    """The pages show id 1. Django's own way leaves out tables that no model manages.

    Tables with rows, such as that of the migrations, go on counting.
    """
    with connection.cursor() as cursor:
        for sequence, table in rows(SEQUENCES):
            if not rows(sql.SQL("SELECT FROM {} LIMIT 1").format(sql.Identifier(table))):
                restart = sql.SQL("ALTER SEQUENCE {} RESTART")
                cursor.execute(restart.format(sql.Identifier(sequence)))


@pytest.fixture(scope="module")
def running(openai_server: FakeOpenAI, django_db_blocker: DjangoDbBlocker) -> Iterator[Server]:
    """The server of all pages. The bundled model may take longer than usual on a busy machine."""
    settings = {"EMBEDDINGS": "local", "RAG_TIMEOUT": str(PATIENCE_S)}
    yield from serve_test_database(
        django_db_blocker, openai_server, METRICS_TOKEN=METRICS_TOKEN, **settings
    )


@pytest.mark.skipif(not shutil.which("curl"), reason="the pages' commands need curl")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "pages", [pages for pages in SESSIONS if commands_of(pages)], ids=lambda pages: pages[0].stem
)
def test_the_commands_of_a_page_print_what_it_shows(
    pages: list[Path], running: Server, openai_server: FakeOpenAI, settings: Settings
) -> None:
    openai_server.reset()
    restart_sequences()
    password = PASSWORD.search((ROOT / "README.md").read_text())
    assert password is not None
    demo = User.objects.create_superuser("demo", password=password[1])
    if pages[0].name == "README.md":  # shows `make demo`, the others an empty database
        settings.EMBEDDINGS = "local"
        runtime.reset()
        load(demo)
        backfill(batch_size=32)
    blocks = commands_of(pages)
    for block, output in zip(blocks, run(blocks, running), strict=True):
        assert loose(output) == loose(block.shown or ""), f"{block.text}\n{output}"


def test_blocks_are_skipped_only_for_known_reasons() -> None:
    counts = dict.fromkeys(REASONS, 0)
    for page in PAGES:
        for block in blocks_of(page) if page not in GUIDES else []:
            if block.reason:
                assert block.reason in counts, f"{page.name}: {block.reason} is not a reason"
                counts[block.reason] += 1
    print(f"{sum(counts.values())} blocks are not run: {counts}")  # noqa: T201 # for pytest -rP
    assert counts == REASONS


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.stem)
def test_json_is_valid_and_links_exist(page: Path) -> None:
    for block in blocks_of(page):
        if block.kind == "json":
            json.loads(block.text)
    for target, anchor in re.findall(
        r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", BLOCK.sub("", page.read_text())
    ):
        linked = (page.parent / target).resolve() if target else page
        assert linked.is_file(), f"{page.name}: {target}"
        headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE) if anchor else []
        slugs = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
        assert not anchor or anchor in slugs, f"{page.name}: {target}#{anchor}"


def codes_in_the_code() -> set[str]:
    """Every error code in the code."""
    kinds = [*vars(exceptions).values(), *vars(errors).values()]
    raised = {
        kind.default_code
        for kind in kinds
        if isinstance(kind, type) and issubclass(kind, exceptions.APIException)
    } - {exceptions.AuthenticationFailed.default_code}  # chat.errors answers the same 401
    written = re.findall(r'"code": "(\w+)"', (ROOT / "verse/body_limit.py").read_text())
    written += re.findall(r'_error\(\d+, "(\w+)"', (ROOT / "verse/urls.py").read_text())
    return raised | set(errors.MODEL_STATUS) | set(written)


def test_the_api_page_has_exactly_the_error_codes() -> None:
    section = (ROOT / "docs/api.md").read_text().partition("\n## Errors\n")[2]
    rows = re.findall(r"^\| \d{3} \| `(\w+)` \|", section, re.MULTILINE)
    assert set(rows) == codes_in_the_code()
    assert len(rows) == len(set(rows))


def test_the_settings_page_has_exactly_the_settings() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    section = page.partition("\n## Settings\n")[2].partition("\n## ")[0]
    read = re.findall(r'env\.\w+\(\s*"([A-Z_0-9]+)"', (ROOT / "verse/settings.py").read_text())
    assert sorted(re.findall(r"^\| `([A-Z_0-9]+)` \|", section, re.MULTILINE)) == sorted(set(read))


def test_make_targets_and_files_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in ALL:
        text = page.read_text()
        code = "\n".join(
            [block.text for block in blocks_of(page)]
            + re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
        )
        named = set(re.findall(r"^(?:\w+=\S+ )*make ([a-z]+)", code, re.MULTILINE))
        assert named <= targets, f"{page.name}: {named - targets}"
        files = re.findall(rf"`((?:{FOLDERS})/[\w/.-]*)`", text)
        assert all((ROOT / name).exists() for name in files), f"{page.name}: {files}"


def test_the_code_cites_only_pages_that_exist() -> None:
    listed = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    for name in listed:
        if name == "tests/test_house_style.py":
            continue  # its examples name pages that do not exist
        if name.endswith((".py", ".sql", ".yaml", "Makefile", "Dockerfile")):
            cited = re.findall(r"\bdocs/[\w/-]+\.md", (ROOT / name).read_text())
            missing = [page for page in cited if not (ROOT / page).is_file()]
            assert not missing, f"{name}: {missing}"


def test_an_index_page_links_to_each_page() -> None:
    indexes = [ROOT / "README.md", *(ROOT / f"docs/{name}.md" for name in INDEXES)]
    linked = {
        (index.parent / target).resolve()
        for index in indexes
        for target in re.findall(r"\]\(([^):#]+\.md)", index.read_text())
    }
    assert set(ALL) - linked - {ROOT / "README.md"} == set()
