"""Runs an external evaluation client against memory search over the HTTP API.

    .venv/bin/python -m benchmarks.quality --data FILE --client FILE

The client measures how often recall finds the messages that answer a question. It and its data are
not part of this project: docs/evaluation.md describes them. Each conversation becomes a user of the
scratch database; its messages are imported and embedded by the bundled model. A real server then
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

from benchmarks.stage import scratch_database, serving
from chat.auth.api_tokens import create_token


def main() -> None:
    """Run the client, which prints its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="conversations with questions and their evidence"
    )
    parser.add_argument(
        "--client", type=Path, required=True, help="the program that sends the questions and counts"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, scratch_database() as url:
        tokens = import_and_embed(options.client, options.data, Path(folder))
        for mode, embeddings in {"words and meaning": "local", "words only": "none"}.items():
            with serving(
                url, "http://127.0.0.1:9/v1", EMBEDDINGS=embeddings, WEB_CONCURRENCY="1"
            ) as server:
                print(f"\n{mode}", flush=True)
                access_options = ("--base-url", server.url, "--token-file", str(tokens))
                run_client(options.client, options.data, *access_options)


def import_and_embed(client: Path, data: Path, folder: Path) -> Path:
    """Import and embed the messages. Returns a JSON file with each user's token."""
    lines, tokens = folder / "messages.jsonl", folder / "tokens.json"
    run_client(client, data, "--export-jsonl", str(lines))
    call_command("import_messages", str(lines), "--create-users")
    call_command("backfill_embeddings", "--sleep", "0", "--vacuum", verbosity=0)
    tokens.write_text(
        json.dumps({user.username: create_token(user)[1] for user in User.objects.all()})
    )
    return tokens


def run_client(client: Path, data: Path, *arguments: str) -> None:
    """Run the client. Its failure ends this program."""
    subprocess.run([sys.executable, str(client), "--data", str(data), *arguments], check=True)


if __name__ == "__main__":
    main()
