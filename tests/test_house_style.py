"""The repository follows the house style, and each rule notices a violation."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house_style import ROOT, Place, broken_rules, code, prose, sql


def test_the_repository_follows_the_house_style() -> None:
    places = [f"{place.file}:{place.line}: {place.rule}" for place in broken_rules()]
    assert places == [], "\n".join(places)


def rules(places: Iterator[Place]) -> set[str]:
    """The broken rules, without their places."""
    return {place.rule for place in places}


LONG_FUNCTION = "def f():\n" + "    pass\n" * 40
VIOLATIONS = [
    ("x = 1  # " + "x" * 100, "line over 100 characters"),
    ("pass\n" * 251, "file over 250 lines"),
    (LONG_FUNCTION, "function over 40 lines"),
    ("for one in (): pass", "loop over 'one'"),
    ("[one for one in ()]", "loop over 'one'"),
    ("kept = 1", "variable named 'kept'"),
    ("def f(most): pass", "parameter named 'most'"),
    ("def test_" + "_".join("a" * 13) + "(): pass", "test name over 12 words"),
]
ALLOWED = [
    "x = 1  # " + "x" * 100 + "  # noqa: E501",
    "pass\n" * 250,
    "def f():\n" + "    pass\n" * 39,
    "for item in (): pass",
    "print(kept)",
    "def test_" + "_".join("a" * 12) + "(): pass",
]


@pytest.mark.parametrize(("source", "rule"), VIOLATIONS)
def test_violations_in_code_are_noticed(source: str, rule: str) -> None:
    assert rule in rules(code.broken_rules("chat/x.py", source))


@pytest.mark.parametrize("source", ALLOWED)
def test_allowed_code_breaks_no_rule(source: str) -> None:
    assert rules(code.broken_rules("chat/x.py", source)) == set()


def test_modules_of_the_same_name_are_noticed() -> None:
    files = ["chat/a/keys.py", "chat/keys.py", "retrieval/keys.py", "chat/a/models.py"]
    places = list(code.same_names([*files, "chat/models.py", "chat/tests/keys.py"]))
    assert {place.file for place in places} == {"chat/a/keys.py", "chat/keys.py"}


def test_a_second_meaning_of_an_imported_name_is_noticed() -> None:
    sources = {
        "chat/a.py": "LIMIT = 1\nOWN = 2",
        "chat/b.py": "LIMIT = 3\nOWN = 4",
        "chat/c.py": "from chat.a import LIMIT",
        "verse/a.py": "LIMIT = 5",
    }
    places = set(code.shared_names(sources))
    assert places == {Place("second meaning of LIMIT", f"chat/{name}.py", 1) for name in "ab"}


@pytest.mark.parametrize(
    "source",
    [
        'f"SELECT {column} FROM {table}"',
        '"DELETE FROM {}".format(table)',
        'TEXT.replace("{table}", table)',
        '"SELECT %s FROM x" % column',
        '"SELECT x FROM y " + condition',
        "ROWS.format(table)",
    ],
)
def test_sql_that_is_built_as_text_is_noticed(source: str) -> None:
    names = sql.constants(['ROWS = "SELECT x FROM {}"'])
    assert len(list(sql.built_statements("chat/x.py", source, names))) == 1


@pytest.mark.parametrize(
    "source",
    [
        'sql.SQL("DELETE FROM {}").format(table)',
        'ROWS = sql.SQL("SELECT {}")\nROWS.format(column)',
        '"the extension is missing: run CREATE EXTENSION {}".format(name)',
        'f"{count} rows"',
    ],
)
def test_composed_sql_and_other_texts_are_allowed(source: str) -> None:
    names = sql.constants(['ROWS = "SELECT x FROM {}"'])
    assert list(sql.built_statements("chat/x.py", source, names)) == []


@pytest.mark.parametrize(
    "source",
    ["# Whoever calls it", '"""It waits for somebody else."""', 'x = "the rows are gone now"'],
)
def test_vague_words_in_python_are_noticed(source: str) -> None:
    assert len(list(prose.vague_words_of_python("chat/x.py", source))) == 1


@pytest.mark.parametrize("source", ["# runs as 'nobody'", 'x = "gone"', "gone = 1"])
def test_values_and_the_account_nobody_are_allowed(source: str) -> None:
    assert list(prose.vague_words_of_python("chat/x.py", source)) == []


def test_vague_words_in_sql_comments_and_markdown_are_noticed() -> None:
    assert list(prose.vague_words_of_sql("chat/x.sql", "SELECT gone\n-- made anew")) == [
        Place("vague word 'anew'", "chat/x.sql", 2)
    ]
    page = "```\ngone\n```\n`told` is a value.\nIt is gone."
    assert list(prose.vague_words_of_markdown("docs/x.md", page)) == [
        Place("vague word 'gone'", "docs/x.md", 5)
    ]


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("# contract section 7", "cites 'contract'"),
        ('"""See the design notes, Connections."""', "cites 'design notes'"),
        ("# shared/plan.md says why", "cites 'shared/'"),
        ("# docs/nowhere.md", "cites docs/nowhere.md, which does not exist"),
    ],
)
def test_citations_of_what_cannot_be_opened_are_noticed(source: str, rule: str) -> None:
    assert rules(prose.bad_citations("chat/x.py", source, ROOT)) == {rule}


def test_pages_of_the_repository_may_be_cited(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/page.md").touch()
    assert list(prose.bad_citations("chat/x.py", "# docs/page.md", tmp_path)) == []
