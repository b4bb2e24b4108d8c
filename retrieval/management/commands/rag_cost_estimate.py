"""What embedding all pending messages would cost. Contract section 5."""

from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from retrieval import current_model
from retrieval.backfill.estimate import Estimate, estimate
from retrieval.db import NoMemory
from retrieval.embeddings import embedding_service
from retrieval.management.operator_command import OperatorCommand

HELP = """\
What backfill_embeddings would cost: pending messages, their tokens, US dollars. Changes nothing and calls nobody.
Works before migrate too, where every message that may be remembered counts.

  manage.py rag_cost_estimate                              100 tokens a message
  manage.py rag_cost_estimate --exact                      counted by the model's tokenizer
  manage.py rag_cost_estimate --exact --json

Pending, as in rag_status: no vector of the database's model, not set aside, not switched off. Where the settings name
another model, nothing is embedded before rag_model use, which tells what that switch costs. The price:
EMBEDDING_PRICE_PER_1K, else OpenAI's of the day that stands in retrieval/embeddings/cost.py; nothing with EMBEDDINGS=local or
none.
--exact counts equal texts of one user once, as they are bought, and a text's first 8,191 tokens.
Locks: none; --exact keeps a transaction open meanwhile, for which migrate and index builds wait."""
OTHER_MODEL = (
    "This is what the model {other}, of the stored vectors, has yet to embed; the settings name {name}. What "
    "switching to it costs: manage.py rag_model use, which asks first"
)


class Command(OperatorCommand):
    """Parse, count, say."""

    help = HELP

    def add_arguments(self, parser: ArgumentParser) -> None:
        """--exact."""
        parser.add_argument(
            "--exact", action="store_true", help="read the texts and count their tokens"
        )

    def run(self, **options: Any) -> None:
        """Three lines."""
        found = estimate(exact=options["exact"])
        self._warn_of_another_model()
        if options["json"]:
            self.write_json(as_json(found))
            return
        self.stdout.write(f"Messages to backfill: {found.messages:,}")
        self.stdout.write(f"Estimated tokens: {found.tokens:,}")
        self.stdout.write(f"Estimated cost: ${found.cost_usd:,.2f}")

    def _warn_of_another_model(self) -> None:
        """Beside the three lines: what is counted cannot be embedded with these settings."""
        name = embedding_service.configured_name()
        with suppress(NoMemory):
            if name and (other := current_model.other_than(name)):
                self.stderr.write(OTHER_MODEL.format(other=other, name=name))


def as_json(found: Estimate) -> dict[str, object]:
    """For scripts; the cost not rounded to cents."""
    cost_usd = round(found.cost_usd, 6)
    return {
        "messages": found.messages,
        "tokens": found.tokens,
        "cost_usd": cost_usd,
        "exact": found.exact,
    }
