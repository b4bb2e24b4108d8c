"""Rules for prose: no vague words, and nothing is cited that a reader cannot open."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.house_style.places import Place, parse

# 'nobody' in quotes is the system account.
VAGUE = re.compile(
    r"\b(whoever|somebody|(?<![`'\"])nobody(?![`'\"])|anew|mends?|mended|beside|wherever"
    r"|gone|told|untold)\b",
    re.IGNORECASE,
)
CLOSED_SOURCE = re.compile(r"\bcontract\b|\bdesign notes?\b|\bshared/", re.IGNORECASE)
DOCS_PAGE = re.compile(r"\bdocs/[\w/-]+\.md\b")
FENCED_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
MIN_SPACES = 3  # a text of fewer words is an identifier or a value
RULES_THEMSELVES = ("tests/house_style/", "tests/test_house_style.py")


def vague_words_of_python(file: str, source: str) -> Iterator[Place]:
    """Looks at comments, and at texts of some words: docstrings, help, errors, log lines."""
    if not file.startswith(RULES_THEMSELVES):
        for line, text in texts_of_python(source):
            yield from _vague_words(file, text, line)


def vague_words_of_sql(file: str, source: str) -> Iterator[Place]:
    """Looks at comments."""
    for number, line in enumerate(source.splitlines(), 1):
        yield from _vague_words(file, line.partition("--")[2], number)


def vague_words_of_page(file: str, source: str) -> Iterator[Place]:
    """Looks at all of a script, a style sheet or a template: most of it is read by people."""
    yield from _vague_words(file, source, 1)


def vague_words_of_markdown(file: str, source: str) -> Iterator[Place]:
    """Looks at the text, without fenced blocks and inline code."""
    text = FENCED_BLOCK.sub(lambda block: "\n" * block[0].count("\n"), source)
    yield from _vague_words(file, re.sub(r"`[^`\n]*`", "", text), 1)


def bad_citations(file: str, source: str, root: Path) -> Iterator[Place]:
    """What is cited must be in the repository."""
    texts = texts_of_python(source) if file.endswith(".py") else [(1, source)]
    if file.startswith(RULES_THEMSELVES):
        return
    for start, text in texts:
        for number, line in enumerate(text.splitlines(), start):
            if match := CLOSED_SOURCE.search(line):
                yield Place(f"cites {match[0].strip()!r}", file, number)
            for page in DOCS_PAGE.findall(line):
                if not (root / page).exists():
                    yield Place(f"cites {page}, which does not exist", file, number)


@cache
def texts_of_python(source: str) -> list[tuple[int, str]]:
    """Comments and texts of some words, each with its first line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [
        (token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT
    ]
    strings = [
        (node.lineno, node.value)
        for node in ast.walk(parse(source))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.count(" ") >= MIN_SPACES
    ]
    return comments + strings


def _vague_words(file: str, text: str, first_line: int) -> Iterator[Place]:
    for number, line in enumerate(text.splitlines(), first_line):
        if match := VAGUE.search(line):
            yield Place(f"vague word {match[0].lower()!r}", file, number)
