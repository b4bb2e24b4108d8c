"""Finds what the house style forbids: ``python -m tests.house_style [folder …]``.

Each rule is a function of one file, except ``same_names`` and ``shared_names``. A line may be
longer with ``# noqa: E501``: an address, a regular expression or data that would be harder to read
in pieces.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.house_style import code, prose, sql
from tests.house_style.places import Place, is_product

ROOT = Path(__file__).resolve().parent.parent.parent
# Generated, or written by others.
PAGES = (".js", ".css", ".html")
EXCLUDED = ("benchmarks/results/", "docs/images/", "tests/data/", "CHANGELOG.md", "LICENSE")

__all__ = ["ROOT", "Place", "broken_rules", "is_product"]


def files(root: Path = ROOT) -> list[str]:
    """The repository's files, relative to ``root``."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    names = subprocess.check_output(command, cwd=root, text=True).splitlines()
    return [name for name in names if not name.startswith(EXCLUDED) and (root / name).is_file()]


def broken_rules(root: Path = ROOT) -> Iterator[Place]:
    """Every place in the repository that breaks a rule."""
    readable = (
        ".py",
        ".sql",
        ".md",
        *PAGES,
        ".toml",
        ".yaml",
        "Dockerfile",
        "Makefile",
        ".example",
    )
    sources = {name: (root / name).read_text() for name in files(root) if name.endswith(readable)}
    python = {name: source for name, source in sources.items() if name.endswith(".py")}
    product = [source for name, source in python.items() if is_product(name)]
    constants = sql.constants(product)
    for file, source in sources.items():
        yield from prose.bad_citations(file, source, root)
        if file.endswith(".py"):
            yield from code.broken_rules(file, source)
            yield from prose.vague_words_of_python(file, source)
            if is_product(file):
                yield from sql.built_statements(file, source, constants)
        elif file.endswith(".sql"):
            yield from code.long_lines(file, source)
            yield from prose.vague_words_of_sql(file, source)
        elif file.endswith(PAGES) and "/vendor/" not in file:
            yield from prose.vague_words_of_page(file, source)
            if not file.endswith(".html"):
                yield from code.long_lines(file, source)
                yield from code.long_file(file, source)
        elif file.endswith(".md"):
            yield from prose.vague_words_of_markdown(file, source)
    yield from code.same_names(list(python))
    yield from code.shared_names(python)
