"""demo: what `make demo` runs: the database, a user with conversations to remember, the server with local models."""

import json
import os
import socket
import sys
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from tqdm import tqdm

from chat.samples.loading import load, questions
from retrieval.backfill import Backfill, count_pending
from retrieval.embeddings.embedding_service import EmbeddingError, model_name
from verse.environment import kept_secret

MOST_WORKERS = 2  # each holds a model of its own
BATCH = 16  # messages between two steps of the progress bar; two runs of the bundled model
TRY = r"""
To see what it remembers, ask in a second terminal:

  TOKEN=$(.venv/bin/python manage.py create_token demo)
  api() {{ curl -s "{url}/api/$1" -H "Authorization: Token $TOKEN" -H "Content-Type: application/json" -d "$2"; }}
  CHAT=$(api chats/ '{{}}' | sed 's/.*"id":\([0-9]*\).*/\1/')
{asked}
"""


class Command(BaseCommand):
    """Make ready, then become the server."""

    help = "Migrate, make the user demo and serve http://127.0.0.1:8000 (PORT moves it) with the bundled models."

    def handle(self, **options: Any) -> None:
        """Never returns: this process becomes the server, so that Ctrl-C reaches it."""
        self.refuse_taken_port()
        call_command("migrate", verbosity=0)
        password = kept_secret(settings.HOME / "demo_password", length=9)
        load(self.make_user(password))
        self.embed()
        connection.close()
        self.stdout.write(f"Sign in as demo, password {password}")
        model = (
            "the bundled model, a very small one" if settings.LLM == "local" else settings.LLM_MODEL
        )
        self.stdout.write(
            f"Answers come from {model}; data lies in {settings.HOME.name}/, delete it to begin anew"
        )
        url = f"http://127.0.0.1:{settings.PORT}"
        asked = "\n".join(
            f"  api chats/$CHAT/messages/ '{json.dumps({'content': one.question})}'"
            for one in questions()
        )
        self.stdout.write(TRY.format(url=url, asked=asked))
        self.stdout.write(f"Serving {url} (the API: /api/docs/); Ctrl-C stops it")
        self.stdout.flush()
        os.chdir(settings.BASE_DIR)
        server = [
            sys.executable,
            "-m",
            "gunicorn",
            "verse.asgi:application",
            *self.server_options(),
        ]
        os.execv(sys.executable, server)  # noqa: S606 - no shell is what we want

    def refuse_taken_port(self) -> None:
        """CommandError where somebody else serves there already."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", settings.PORT))
            except OSError as error:
                raise CommandError(
                    f"port {settings.PORT} is in use: PORT=9000 make demo takes another"
                ) from error

    def make_user(self, password: str) -> AbstractBaseUser:
        """The user demo, who may look at the admin; a changed password is set back to the one that is printed."""
        users = get_user_model()._default_manager
        user, _ = users.get_or_create(
            username="demo", defaults={"is_staff": True, "is_superuser": True}
        )
        if not user.check_password(password):
            user.set_password(password)
            user.save()
        return user

    def embed(self) -> None:
        """Embed what has no embedding yet, with a bar; where no model is set, words will do."""
        run = Backfill(batch_size=BATCH)
        for _ in run.fill_words():
            pass
        pending = sum(count_pending(source, model=model_name()) for source in run.tables)
        with tqdm(
            total=pending, desc="Embedding", unit=" messages", disable=None if pending else True
        ) as bar:
            try:
                for report in run.embed():
                    bar.update(report.embedded)
            except EmbeddingError as error:
                self.stderr.write(f"Not embedded: {error}")

    def server_options(self) -> list[str]:
        """Reached from this machine only."""
        workers = min(settings.WEB_CONCURRENCY, MOST_WORKERS)
        return ["--bind", f"127.0.0.1:{settings.PORT}", "--workers", str(workers)]
