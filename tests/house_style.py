"""Counts what the house style forbids: ``python -m tests.house_style [folder …]`` lists each place.

Rules: lines of at most 100 characters, functions of at most 40 lines, product files of at most 250; no loop over
``one``; no words or variable names that a reader must decode (VAGUE_WORDS, VAGUE_NAMES); no SQL text built by ``replace``, ``format``, ``%`` or an f-string (``psycopg.sql`` composes it); no two
modules of one name inside one package.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("verse", "chat", "retrieval", "pooled_postgres", "embedded_postgres", "fake_openai")
MAX_LINE_CHARS = 100
MAX_FUNCTION_LINES = 40
MAX_FILE_LINES = 250
# Django and Python look for these names; they may stand in each package.
CONVENTIONAL = {
    "__init__",
    "__main__",
    "apps",
    "base",
    "models",
    "admin",
    "urls",
    "conftest",
    "errors",
}
# Not after a colon: there a message tells which statement to run.
SQL = re.compile(
    r"(?<!: )\b(SELECT\b.*\bFROM|INSERT INTO|UPDATE \S+ SET|DELETE FROM|DROP (TABLE|INDEX|FUNCTION|TRIGGER|EXTENSION)"
    r"|(CREATE|ALTER)( OR REPLACE)?( UNIQUE)? (TABLE|INDEX|FUNCTION|TRIGGER|EXTENSION|ROLE|DATABASE|SCHEMA)"
    r"|GRANT \S+|REVOKE \S+|VACUUM|REINDEX|TRUNCATE)\b",
    re.DOTALL,
)


VAGUE_WORDS = re.compile(
    r"\b(whoever|somebody|(?<![`'])nobody(?![`'])|anew|mend|mends|mended|beside|wherever"
    r"|whatever it is|gone|told|untold)\b",
    re.IGNORECASE,
)
VAGUE_NAMES = {
    "found",
    "told",
    "here",
    "made",
    "kept",
    "said",
    "asked",
    "least",
    "most",
    "gone",
    "one",
}


class Place(NamedTuple):
    """A rule that is broken, and where."""

    rule: str
    file: str
    line: int


def is_product(file: str) -> bool:
    """Whether the file is part of the server, not of tests, benchmarks or Django's own migrations."""
    return file.split("/")[0] in PACKAGES and not {"tests", "migrations"} & set(file.split("/"))


def python_files(root: Path = ROOT) -> list[str]:
    """The repository's Python files, relative to ``root``."""
    listed = subprocess.check_output(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=root, text=True
    )
    return [name for name in listed.splitlines() if name.endswith(".py") and (root / name).exists()]


def broken_rules(root: Path = ROOT) -> Iterator[Place]:
    """Every place that breaks a rule."""
    sources = {file: (root / file).read_text() for file in python_files(root)}
    trees = {file: ast.parse(source) for file, source in sources.items()}
    constants = _sql_constants(trees)
    for file, tree in trees.items():
        yield from _long_lines(file, sources[file])
        yield from _loops_over_one(file, tree)
        yield from _vague_names(file, tree)
        yield from _vague_words(file, sources[file], tree)
        if is_product(file):
            yield from _long_functions(file, tree)
            yield from _built_sql(file, tree, constants)
    yield from _namesakes(list(sources))


def _long_lines(file: str, source: str) -> Iterator[Place]:
    lines = source.splitlines()
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE_CHARS:
            yield Place("line over 100 characters", file, number)
    if is_product(file) and len(lines) > MAX_FILE_LINES:
        yield Place("file over 250 lines", file, len(lines))


def _loops_over_one(file: str, tree: ast.AST) -> Iterator[Place]:
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            names = [name for name in ast.walk(node.target) if isinstance(name, ast.Name)]
            if any(name.id == "one" for name in names):
                yield Place("loop over 'one'", file, names[0].lineno)


def _vague_names(file: str, tree: ast.AST) -> Iterator[Place]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Name)
            and node.id in VAGUE_NAMES
            and isinstance(node.ctx, ast.Store)
        ):
            yield Place(f"variable named {node.id!r}", file, node.lineno)
        elif isinstance(node, ast.arg) and node.arg in VAGUE_NAMES:
            yield Place(f"parameter named {node.arg!r}", file, node.lineno)


def _vague_words(file: str, source: str, tree: ast.AST) -> Iterator[Place]:
    """In comments and in texts of more than three words: docstrings, help, errors, log lines."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (word := VAGUE_WORDS.search(token.string)):
            yield Place(f"vague word {word[0]!r}", file, token.start[0])
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.count(" ") > 2
        ):
            for number, line in enumerate(node.value.splitlines()):
                if word := VAGUE_WORDS.search(line):
                    yield Place(f"vague word {word[0]!r}", file, node.lineno + number)


def _long_functions(file: str, tree: ast.AST) -> Iterator[Place]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            last_line = node.end_lineno or node.lineno
            if last_line - node.lineno + 1 > MAX_FUNCTION_LINES:
                yield Place("function over 40 lines", file, node.lineno)


def _sql_constants(trees: dict[str, ast.Module]) -> set[str]:
    """Names of constants, of any module, that hold plain text with SQL in it."""
    return {
        target.id
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.Assign) and _is_sql(node.value)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.isupper()
    }


def _is_sql(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and bool(SQL.search(node.value))
    if isinstance(node, ast.JoinedStr):
        return bool(SQL.search("".join(_text(part) for part in node.values)))
    return False


def _text(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else "x"


def _built_sql(file: str, tree: ast.AST, constants: set[str]) -> Iterator[Place]:
    def is_statement(node: ast.expr) -> bool:
        return _is_sql(node) or (isinstance(node, ast.Name) and node.id in constants)

    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and _is_sql(node):
            yield Place("SQL in an f-string", file, node.lineno)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.Add):
            if is_statement(node.left) or is_statement(node.right):
                yield Place("SQL built by an operator", file, node.lineno)
        elif isinstance(node, ast.Call) and (verb := _filling_verb(node)):
            statement = node.func.value if isinstance(node.func, ast.Attribute) else node.func
            if is_statement(statement) or _fills_a_brace(node):
                yield Place(f"SQL built by {verb}", file, node.lineno)


def _filling_verb(call: ast.Call) -> str | None:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    return name if name in {"format", "replace"} else None


def _fills_a_brace(call: ast.Call) -> bool:
    first = call.args[0] if call.args else None
    return isinstance(first, ast.Constant) and str(first.value).startswith("{")


def _namesakes(files: list[str]) -> Iterator[Place]:
    seen: dict[tuple[str, str], list[str]] = defaultdict(list)
    for file in filter(is_product, files):
        path = Path(file)
        names = {path.stem} if path.stem != "__init__" else {path.parent.name}
        for name in names - CONVENTIONAL:
            if "management/commands" not in file:
                seen[path.parts[0], name].append(file)
    for same in seen.values():
        yield from (Place("two modules of one name", file, 1) for file in same if len(same) > 1)


def main(folders: list[str]) -> int:
    """Print the places inside the folders, all without any, then a count for each rule."""
    places = [
        place
        for place in broken_rules()
        if not folders or place.file.startswith(tuple(folder.rstrip("/") for folder in folders))
    ]
    for place in places:
        print(f"{place.file}:{place.line}: {place.rule}")  # noqa: T201 # a command
    print(dict(Counter(place.rule for place in places)))  # noqa: T201 # a command
    return 1 if places else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
