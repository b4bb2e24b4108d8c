"""Where a rule is broken, and which files belong to the product."""

from typing import NamedTuple

PACKAGES = ("verse", "chat", "retrieval", "pooled_postgres", "embedded_postgres", "fake_openai")


class Place(NamedTuple):
    """A broken rule and its place."""

    rule: str
    file: str
    line: int


def is_product(file: str) -> bool:
    """Whether the file is product code: not a test, a benchmark or a Django migration."""
    parts = file.split("/")
    return parts[0] in PACKAGES and not {"tests", "migrations"} & set(parts)
