"""How often recall finds the messages that answer a question: questions with known evidence, over the HTTP API.

    .venv/bin/python -m benchmarks.quality --data FILE --client FILE

The data and its client are not part of this project: docs/evaluation.md says what they are. Each conversation
becomes a user of the scratch database; its messages are imported, then embedded by the bundled model; a real server
answers ``GET /api/memory/search/`` for each question, by words and meaning, then by words alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
os.environ["EMBEDDINGS"] = "local"
django.setup()

from django.contrib.auth.models import User
from django.core.management import call_command

from benchmarks.load import scratch_database, serving
from chat.auth.api_tokens import create_token


def main() -> None:
    """Print the client's tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="conversations with questions and their evidence"
    )
    parser.add_argument(
        "--client", type=Path, required=True, help="the program that asks them and counts"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, scratch_database() as url:
        tokens = remember(options.client, options.data, Path(folder))
        for by, embeddings in {"words and meaning": "local", "words only": "none"}.items():
            with serving(
                url, "http://127.0.0.1:9/v1", EMBEDDINGS=embeddings, WEB_CONCURRENCY="1"
            ) as server:
                print(f"\n{by}", flush=True)
                ask(
                    options.client,
                    options.data,
                    "--base-url",
                    server.url,
                    "--token-file",
                    str(tokens),
                )


def remember(client: Path, data: Path, folder: Path) -> Path:
    """A file with the token of each conversation's user, whose messages are all embedded."""
    lines, tokens = folder / "messages.jsonl", folder / "tokens.json"
    ask(client, data, "--export-jsonl", str(lines))
    call_command("import_messages", str(lines), "--create-users")
    call_command("backfill_embeddings", "--sleep", "0", "--vacuum", verbosity=0)
    tokens.write_text(
        json.dumps({user.username: create_token(user)[1] for user in User.objects.all()})
    )
    return tokens


def ask(client: Path, data: Path, *arguments: str) -> None:
    """Run the client; what it says of a failure ends this."""
    subprocess.run([sys.executable, str(client), "--data", str(data), *arguments], check=True)


if __name__ == "__main__":
    main()
