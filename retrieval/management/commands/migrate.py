"""Django's migrate, one at a time: a second one waits for the first instead of colliding with it."""

from typing import Any

from django.core.management.commands import migrate
from django.db import connections

from retrieval.locks import one_at_a_time


class Command(migrate.Command):
    """Django's, behind a lock."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Wait for the turn, then migrate."""
        with one_at_a_time(connections[options["database"]]):
            super().handle(*args, **options)
