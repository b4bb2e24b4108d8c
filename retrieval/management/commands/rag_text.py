"""In which language words are recalled. Contract section 5."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from retrieval.management.operator_command import OperatorCommand
from retrieval.recall import search_config

HELP = """\
Show, or change, the text search configuration by which messages are found by words (stemming, stop words, the names
of months). It is a row in the database: every process goes by it at once.

  manage.py rag_text                what is in force, and how many messages were made by it
  manage.py rag_text use german     questions and new messages from now on; then run backfill_embeddings,
                                    which makes the words of earlier messages anew (no key, no cost)

Until then earlier messages are found where both configurations make the same of a word. "simple" stems nothing: for
many languages at once. The way back is the same command. Locks: none that anybody waits for."""


class Command(OperatorCommand):
    """Parse, change, say."""

    help = HELP

    def add_arguments(self, parser: ArgumentParser) -> None:
        """``use CONFIG``."""
        parser.add_argument("action", nargs="?", choices=["use"], help="change it")
        parser.add_argument(
            "config",
            nargs="?",
            metavar="CONFIG",
            help="a text search configuration of PostgreSQL's",
        )

    def run(self, **options: Any) -> None:
        """Say what is in force."""
        if options["action"] and not options["config"]:
            raise CommandError("name a configuration, such as: rag_text use german", returncode=2)
        if options["action"]:
            try:
                search_config.use(options["config"])
            except search_config.UnknownText as error:
                raise CommandError(str(error)) from error
        found = search_config.state()
        if options["json"]:
            self.write_json({"config": found.config, "current": found.made, "other": found.other})
            return
        self.stdout.write(
            f"{found.config}: {found.made:,} messages, {found.other:,} made by another configuration"
        )
        if found.other:
            self.stdout.write("Run backfill_embeddings: it makes their words anew, at no cost")
