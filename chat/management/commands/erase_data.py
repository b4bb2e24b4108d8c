"""Erase a user's conversations and everything that belongs to them, as the user can on /memory/.

For a request by letter, and after the restore of a backup that is older than an erasure. The
account, its tokens and its memory switch stay.

  manage.py erase_data alice

Locks: the user's rows, as each deletion of a conversation does. There is no way back.
"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import transaction

from chat import personal_data
from chat.auth.usernames import find_user
from retrieval import audit
from retrieval.management.operator_command import OperatorCommand


class Command(OperatorCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", metavar="USER", help="the user's name")

    def run(self, **options: Any) -> None:
        """Raises CommandError: there is no such user."""
        user = find_user(options["user"])
        if user is None:
            raise CommandError(f"No user is called {options['user']!r}; nothing was erased")
        with transaction.atomic():
            audit.record_command("erase", whose=user)
            receipt = personal_data.erase(user.pk)
        counts = [f"  {table}: {count:,}" for table, count in receipt["deleted"].items()]
        self.report(options, receipt, f"{user.username}: erased", *counts)
