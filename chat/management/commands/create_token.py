"""Create an API token for a user and print it, and nothing else.

It is stored hashed and cannot be shown again.

  TOKEN=$(manage.py create_token alice --name cron)

Locks: none but the new row.
"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import transaction

from chat.auth.api_tokens import create_token
from chat.auth.usernames import find_user
from retrieval import audit
from retrieval.management.operator_command import OperatorCommand


class Command(OperatorCommand):
    has_json_output = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", metavar="USER", help="the user's name")
        parser.add_argument("--name", default="", help="what the token is for, such as 'my laptop'")

    def run(self, **options: Any) -> None:
        """Raises CommandError: there is no such user, or the name is too long."""
        username, name = options["user"], options["name"]
        user = find_user(username)
        if user is None:
            raise CommandError(
                f"No user is called {username!r};"
                " make one: manage.py createsuperuser --username NAME"
            )
        if len(name) > 100:
            raise CommandError("--name has at most 100 characters")
        with transaction.atomic():
            audit.record_command("create_token", whose=username)
            _, key = create_token(user, name=name)
        self.stdout.write(key)
