"""demo: what `make demo` runs: the database, a user, the server with local models."""

import os
import sys
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connection

from verse.environment import kept_secret

MOST_WORKERS = 2  # each holds a model of its own


class Command(BaseCommand):
    """Make ready, then become the server."""

    help = "Migrate, make the user demo and serve http://127.0.0.1:8000 (PORT moves it) with the bundled models."

    def handle(self, **options: Any) -> None:
        """Never returns: this process becomes the server, so that Ctrl-C reaches it."""
        call_command("migrate", verbosity=0)
        password = kept_secret(settings.HOME / "demo_password", length=9)
        self.make_user(password)
        connection.close()
        self.stdout.write(f"Sign in as demo, password {password}")
        self.stdout.write(f"Serving http://127.0.0.1:{settings.PORT} (the API: /api/docs/); Ctrl-C stops it")
        self.stdout.flush()
        os.chdir(settings.BASE_DIR)
        server = [sys.executable, "-m", "gunicorn", "verse.asgi:application", *self.server_options()]
        os.execv(sys.executable, server)  # noqa: S606 - no shell is what we want

    def make_user(self, password: str) -> None:
        """The user demo, who may look at the admin; a changed password is set back to the one that is printed."""
        users = get_user_model()._default_manager
        user, _ = users.get_or_create(username="demo", defaults={"is_staff": True, "is_superuser": True})
        if not user.check_password(password):
            user.set_password(password)
            user.save()

    def server_options(self) -> list[str]:
        """Reached from this machine only."""
        workers = min(settings.WEB_CONCURRENCY, MOST_WORKERS)
        return ["--bind", f"127.0.0.1:{settings.PORT}", "--workers", str(workers)]
