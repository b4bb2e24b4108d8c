"""create_token USER [--name NAME]: a new API token on standard output, and nothing else."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from chat.auth.api_tokens import create_token
from retrieval.management.operator_command import summarise_db_error


class Command(BaseCommand):
    """Parse, call, say."""

    help = "Make an API token for a user and print it; it is kept hashed and cannot be shown again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The user, and what to call the token."""
        parser.add_argument("user", metavar="USER", help="the user's name")
        parser.add_argument("--name", default="", help="what the token is for, such as 'my laptop'")

    def handle(self, *, user: str, name: str, **options: Any) -> str:
        """The token. CommandError: there is none, and why."""
        try:
            return make(user, name)
        except Error as error:
            raise CommandError(summarise_db_error(error)) from error


def make(user: str, name: str) -> str:
    """A new token of the user's. CommandError: there is no such user, or the name is too long."""
    found = get_user_model()._default_manager.filter(username=user).first()
    if found is None:
        raise CommandError(
            f"No user is called {user!r}; make one: manage.py createsuperuser --username NAME"
        )
    if len(name) > 100:
        raise CommandError("--name has at most 100 characters")
    return create_token(found, name=name)[1]
