"""Rules for code: lengths, loop variables, names of variables and of modules."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.house_style.places import Place, is_product, parse

MAX_LINE_CHARS = 100
MAX_FUNCTION_LINES = 40
MAX_FILE_LINES = 250
MAX_TEST_NAME_WORDS = 12
LONG_LINE_ALLOWED = "noqa: E501"
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
# Django and Python look for these names, so each package may have its own.
CONVENTIONAL_NAMES = {
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


def broken_rules(file: str, source: str) -> Iterator[Place]:
    """All rules for a Python file."""
    tree = parse(source)
    yield from long_lines(file, source)
    yield from loops_over_one(file, tree)
    yield from vague_names(file, tree)
    yield from long_test_names(file, tree)
    if is_product(file):
        yield from long_file(file, source)
        yield from long_functions(file, tree)


def long_lines(file: str, source: str) -> Iterator[Place]:
    for number, line in enumerate(source.splitlines(), 1):
        if len(line) > MAX_LINE_CHARS and LONG_LINE_ALLOWED not in line:
            yield Place("line over 100 characters", file, number)


def long_file(file: str, source: str) -> Iterator[Place]:
    lines = source.count("\n")
    if lines > MAX_FILE_LINES:
        yield Place("file over 250 lines", file, lines)


def long_functions(file: str, tree: ast.AST) -> Iterator[Place]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            last_line = node.end_lineno or node.lineno
            if last_line - node.lineno + 1 > MAX_FUNCTION_LINES:
                yield Place("function over 40 lines", file, node.lineno)


def loops_over_one(file: str, tree: ast.AST) -> Iterator[Place]:
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            names = [name for name in ast.walk(node.target) if isinstance(name, ast.Name)]
            if any(name.id == "one" for name in names):
                yield Place("loop over 'one'", file, names[0].lineno)


def vague_names(file: str, tree: ast.AST) -> Iterator[Place]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            if node.id in VAGUE_NAMES:
                yield Place(f"variable named {node.id!r}", file, node.lineno)
        elif isinstance(node, ast.arg) and node.arg in VAGUE_NAMES:
            yield Place(f"parameter named {node.arg!r}", file, node.lineno)


def long_test_names(file: str, tree: ast.AST) -> Iterator[Place]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            words = node.name.removeprefix("test_").split("_")
            if len(words) > MAX_TEST_NAME_WORDS:
                yield Place("test name over 12 words", file, node.lineno)


def same_names(files: list[str]) -> Iterator[Place]:
    """Modules of the same name in one package. Commands are named by what a user types."""
    modules: dict[tuple[str, str], list[str]] = defaultdict(list)
    for file in files:
        path = Path(file)
        name = path.parent.name if path.stem == "__init__" else path.stem
        if is_product(file) and name not in CONVENTIONAL_NAMES and "commands" not in path.parts:
            modules[path.parts[0], name].append(file)
    for same in modules.values():
        if len(same) > 1:
            yield from (Place("two modules of one name", file, 1) for file in same)


def shared_names(sources: dict[str, str]) -> Iterator[Place]:
    """A constant or class that another module imports has one meaning in its package."""
    definitions: dict[tuple[str, str], list[str]] = defaultdict(list)
    imported: set[tuple[str, str]] = set()
    for file, source in sources.items():
        if is_product(file):
            package, tree = file.partition("/")[0], parse(source)
            for name in _constants_and_classes(tree):
                definitions[package, name].append(file)
            imported |= {(module, name) for module, name in _imports(tree)}
    for key in imported & definitions.keys():
        if len(definitions[key]) > 1:
            yield from (Place(f"second meaning of {key[1]}", file, 1) for file in definitions[key])


def _constants_and_classes(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and target.id.isupper() and len(target.id) > 1:
                yield target.id  # one letter is a TypeVar


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The package and the name of each import from a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module.partition(".")[0], alias.name) for alias in node.names)
