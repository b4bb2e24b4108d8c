"""Where a rule is broken, and which files belong to the product."""

import ast
from functools import cache
from typing import NamedTuple

PACKAGES = ("verse", "chat", "retrieval", "pooled_postgres", "embedded_postgres", "fake_openai")


class Place(NamedTuple):
    """A broken rule and its place."""

    rule: str
    file: str
    line: int


@cache
def parse(source: str) -> ast.Module:
    """The syntax tree. Several rules read each file."""
    return ast.parse(source)


def is_product(file: str) -> bool:
    """Whether the file is product code: not a test, a benchmark or a Django migration."""
    parts = file.split("/")
    return parts[0] in PACKAGES and not {"tests", "migrations"} & set(parts)
