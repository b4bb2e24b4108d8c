"""`make demo` runs this: a database with sample conversations, and a server with local models."""

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

from chat.samples.loading import has_conversations, load, questions
from retrieval.backfill import Backfill, pending
from retrieval.embeddings.embedding_service import model_name
from retrieval.embeddings.errors import EmbeddingError
from retrieval.management.progress import Progress
from verse.secret_file import load_or_create_secret

MAX_WORKERS = 2  # each loads the model into its memory
BATCH_SIZE = 16  # messages for each step of the progress bar; two runs of the bundled model
EXAMPLES = r"""
To see what it remembers, open {url} and click a question, or ask in a second terminal:

  TOKEN=$(.venv/bin/python manage.py create_token demo)
  api() {{ curl -s "{url}/api/$1" -H "Authorization: Token $TOKEN" \
    -H "Content-Type: application/json" -d "$2"; }}
  CHAT=$(api chats/ '{{}}' | sed 's/.*"id":\([0-9]*\).*/\1/')
{questions}
"""


class Command(BaseCommand):
    help = (
        "Migrate, make the user demo and serve http://127.0.0.1:8000 (PORT moves it) "
        "with the bundled models."
    )

    def handle(self, **options: Any) -> None:
        """Never returns: the server replaces this process, so that Ctrl-C reaches it."""
        self.refuse_taken_port()
        call_command("migrate", verbosity=0)
        password = load_or_create_secret(settings.HOME / "demo_password", length=9)
        user = self.make_user(password)
        if not has_conversations(user):
            load(user)
        self.embed()
        connection.close()
        self.stdout.write(f"Sign in as demo, password {password}")
        self.write_introduction()
        self.stdout.flush()
        os.chdir(settings.BASE_DIR)
        server = ["-m", "gunicorn", "verse.asgi:application", *self.server_options()]
        os.execv(sys.executable, [sys.executable, *server])  # noqa: S606 # needs no shell

    def write_introduction(self) -> None:
        """Say which model answers, where the data is, and what to try."""
        bundled = "the bundled model, a very small one"
        model = bundled if settings.LLM == "local" else settings.LLM_MODEL
        home = settings.HOME.name
        self.stdout.write(f"Answers come from {model}; data is in {home}/, delete it to start over")
        url = f"http://127.0.0.1:{settings.PORT}"
        contents = (json.dumps({"content": sample.question}) for sample in questions())
        commands = "\n".join(f"  api chats/$CHAT/messages/ '{content}'" for content in contents)
        self.stdout.write(EXAMPLES.format(url=url, questions=commands))
        self.stdout.write(f"Serving {url} (sign in as demo; the API: /api/docs/); Ctrl-C stops it")

    def refuse_taken_port(self) -> None:
        """Raises CommandError if another process listens on the port."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", settings.PORT))
            except OSError as error:
                raise CommandError(
                    f"port {settings.PORT} is in use: PORT=9000 make demo takes another"
                ) from error

    def make_user(self, password: str) -> AbstractBaseUser:
        """The superuser demo. A changed password is set back to the printed password."""
        users = get_user_model()._default_manager
        user, _ = users.get_or_create(
            username="demo", defaults={"is_staff": True, "is_superuser": True}
        )
        if not user.check_password(password):
            user.set_password(password)
            user.save()
        return user

    def embed(self) -> None:
        """Embed messages without an embedding, with a progress bar. Without a model: words only."""
        run = Backfill(batch_size=BATCH_SIZE)
        for _ in run.fill_words():
            pass
        model = model_name()
        total = sum(pending.count(table, model=model).pending for table in run.tables)
        terminal = sys.stderr if sys.stderr.isatty() else None
        with Progress(self.stderr.write, terminal=terminal) as progress:
            try:
                for _ in run.embed():
                    line = f"{run.embedded:,} of {total:,} messages embedded"
                    progress.update("Embedding", run.embedded, total, unit="messages", line=line)
            except EmbeddingError as error:
                self.stderr.write(f"Not embedded: {error}")

    def server_options(self) -> list[str]:
        """Listen on this machine only."""
        workers = min(settings.WEB_CONCURRENCY, MAX_WORKERS)
        return ["--bind", f"127.0.0.1:{settings.PORT}", "--workers", str(workers)]
