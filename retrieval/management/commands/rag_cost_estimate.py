"""Estimate what backfill_embeddings would cost: pending messages, their tokens, US dollars.

Changes nothing and calls no service. Works before migrate too: then every message that may be
remembered is pending.

  manage.py rag_cost_estimate                      100 tokens a message
  manage.py rag_cost_estimate --exact              counted by the model's tokenizer
  manage.py rag_cost_estimate --exact --json

Pending, as in rag_status: no vector of the database's model, not set aside, not switched off. If
the settings name another model, backfill_embeddings embeds nothing before rag_model use, which
says what that switch costs. The price is EMBEDDING_PRICE_PER_1K, else OpenAI's price in
retrieval/embeddings/cost.py; EMBEDDINGS=local and none cost nothing.
--exact counts equal texts of one user once, as they are bought, and a text's first 8,191 tokens.
Locks: none; --exact keeps a transaction open, for which migrate and index builds wait.
"""

from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from retrieval import current_model
from retrieval.backfill.estimate import estimate
from retrieval.db import NoMemory
from retrieval.embeddings import embedding_service
from retrieval.management.operator_command import OperatorCommand

OTHER_MODEL = (
    "This is what the model {other}, of the stored vectors, has yet to embed; the settings name"
    " {name}. What switching to it costs: manage.py rag_model use, which asks first"
)


class Command(OperatorCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--exact", action="store_true", help="read the texts and count their tokens"
        )

    def run(self, **options: Any) -> None:
        result = estimate(exact=options["exact"])
        self._warn_of_other_model()
        self.report(
            options,
            {
                "messages": result.messages,
                "tokens": result.tokens,
                "cost_usd": round(result.cost_usd, 6),
                "exact": result.exact,
            },
            f"Messages to backfill: {result.messages:,}",
            f"Estimated tokens: {result.tokens:,}",
            f"Estimated cost: ${result.cost_usd:,.2f}",
        )

    def _warn_of_other_model(self) -> None:
        """On standard error: with these settings the pending messages cannot be embedded."""
        name = embedding_service.configured_name()
        with suppress(NoMemory):
            if name and (other := current_model.other_than(name)):
                self.stderr.write(OTHER_MODEL.format(other=other, name=name))
