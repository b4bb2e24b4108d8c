"""Show or change the language of recall by words: a text search configuration of PostgreSQL's.

It defines stemming, stop words and the names of months. It is a row in the database, so every
process uses it at once.

  manage.py rag_text                current configuration, and how many messages were indexed by it
  manage.py rag_text use german     for questions and new messages from now on; then run
                                    backfill_embeddings, which indexes earlier messages again (no
                                    key, no cost)

Until then an earlier message is found if both configurations reduce a word to the same stem.
"simple" stems nothing: for several languages at once. The way back is the same command.
Locks: two rows that only recall reads, for some milliseconds; nothing waits for them.
"""

from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError
from django.db import transaction

from retrieval import audit
from retrieval.management.operator_command import OperatorCommand
from retrieval.recall import search_config


class Command(OperatorCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", nargs="?", choices=["use"], help="change it")
        parser.add_argument(
            "config",
            nargs="?",
            metavar="CONFIG",
            help="a text search configuration of PostgreSQL's",
        )

    def run(self, **options: Any) -> None:
        """Raises CommandError: wrong usage (exit code 2), or an unknown configuration."""
        if options["action"] and not options["config"]:
            raise CommandError("name a configuration, such as: rag_text use german", returncode=2)
        if options["action"]:
            try:
                with transaction.atomic():
                    search_config.switch(options["config"])
                    audit.record_command("rag_text use")
            except search_config.UnknownConfig as error:
                raise CommandError(str(error)) from error
        counted = search_config.count_by_config()
        counts = f"{counted.current:,} messages indexed, {counted.other:,} by another configuration"
        hint = ["Run backfill_embeddings: it indexes their words again, at no cost"]
        self.report(
            options,
            asdict(counted),
            f"{counted.config}: {counts}",
            *(hint if counted.other else []),
        )
