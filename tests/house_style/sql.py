"""The rule for SQL: its text is never built by ``replace``, ``format``, ``%``, ``+``, an f-string.

``psycopg.sql`` composes statements: its ``SQL("…").format(…)`` is allowed.
"""

import ast
import re
from collections.abc import Iterable, Iterator

from tests.house_style.places import Place, parse

OBJECT = "(TABLE|INDEX|FUNCTION|TRIGGER|EXTENSION|ROLE|DATABASE|SCHEMA)"
STATEMENT = re.compile(
    r"\b(SELECT\b.*\bFROM|INSERT INTO|UPDATE \S+ SET|DELETE FROM"
    rf"|DROP {OBJECT}|(CREATE|ALTER)( OR REPLACE)?( UNIQUE)? {OBJECT}"
    r"|GRANT \S+|REVOKE \S+|VACUUM|REINDEX|TRUNCATE)\b",
    re.DOTALL,
)
# A message to a user that contains a statement begins with words.
SENTENCE = re.compile(r"\s*[a-z]+ \S+ [a-z]")


def constants(sources: Iterable[str]) -> set[str]:
    """Names of constants in any module that are SQL text."""
    return {
        name for source in sources for name, value in _assignments(parse(source)) if _is_sql(value)
    }


def built_statements(file: str, source: str, names: set[str]) -> Iterator[Place]:
    """Where SQL text is built. ``names``: constants of any module that are SQL text."""
    tree = parse(source)
    own = dict(_assignments(tree))
    names = names - own.keys() | {name for name, value in own.items() if _is_sql(value)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and _is_sql(node):
            yield Place("SQL in an f-string", file, node.lineno)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.Add):
            if any(_is_statement(side, names) for side in (node.left, node.right)):
                yield Place("SQL built by an operator", file, node.lineno)
        elif isinstance(node, ast.Call) and (verb := _text_method(node, names)):
            yield Place(f"SQL built by {verb}", file, node.lineno)


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Module-level constants and their values."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value


def _text_method(call: ast.Call, names: set[str]) -> str | None:
    """The method's name if it builds SQL text."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in {"format", "replace"}:
        return None
    builds = _is_statement(call.func.value, names) or _replaces_a_placeholder(call)
    return call.func.attr if builds else None


def _is_statement(node: ast.expr, names: set[str]) -> bool:
    return _is_sql(node) or (isinstance(node, ast.Name) and node.id in names)


def _is_sql(node: ast.expr) -> bool:
    if isinstance(node, ast.JoinedStr):
        text = "".join(_text(part) for part in node.values)
    else:
        text = _text(node) if isinstance(node, ast.Constant) else ""
    return bool(STATEMENT.search(text)) and not SENTENCE.match(text)


def _text(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else "x"


def _replaces_a_placeholder(call: ast.Call) -> bool:
    """``text.replace("{table}", …)``."""
    first = call.args[0] if call.args else None
    return isinstance(first, ast.Constant) and str(first.value).startswith("{")
