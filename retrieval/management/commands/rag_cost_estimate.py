"""What embedding all pending messages would cost. Contract section 5."""

from argparse import ArgumentParser
from typing import Any

from retrieval.backfill.estimate import Estimate, estimate
from retrieval.management.command import OperatorCommand

HELP = """\
What backfill_embeddings would cost: pending messages, their tokens, US dollars. Changes nothing and calls nobody.
Works before migrate too, where every message that may be remembered counts.

  manage.py rag_cost_estimate                              100 tokens a message
  manage.py rag_cost_estimate --exact                      counted by the model's tokenizer
  manage.py rag_cost_estimate --exact --json

Pending: no vector of the configured model, not set aside, not switched off. The price: EMBEDDING_PRICE_PER_1K, else
OpenAI's of the day that stands in retrieval/cost.py; nothing with EMBEDDINGS=local or none.
--exact counts equal texts of one user once, as they are bought, and a text's first 8,191 tokens.
Locks: none; --exact keeps a transaction open meanwhile, for which migrate and index builds wait."""


class Command(OperatorCommand):
    """Parse, count, say."""

    help = HELP

    def add_arguments(self, parser: ArgumentParser) -> None:
        """--exact."""
        parser.add_argument("--exact", action="store_true", help="read the texts and count their tokens")

    def run(self, **options: Any) -> None:
        """Three lines."""
        found = estimate(exact=options["exact"])
        if options["json"]:
            self.write_json(as_json(found))
            return
        self.stdout.write(f"Messages to backfill: {found.messages:,}")
        self.stdout.write(f"Estimated tokens: {found.tokens:,}")
        self.stdout.write(f"Estimated cost: ${found.cost_usd:,.2f}")


def as_json(found: Estimate) -> dict[str, object]:
    """For scripts; the cost not rounded to cents."""
    cost_usd = round(found.cost_usd, 6)
    return {"messages": found.messages, "tokens": found.tokens, "cost_usd": cost_usd, "exact": found.exact}
