"""Show which embedding model the stored vectors come from, or switch to another.

  manage.py rag_model                          show
  manage.py rag_model use                      switch to the configured model: shows the cost, asks
  manage.py rag_model use --yes --max-cost 5   in a script: asks nothing; does not switch if the
                                               estimate is over 5 US dollars

The switch is safe under traffic. New messages are embedded by the new model at once; the others are
found by words until backfill_embeddings has embedded them again. Vectors of two models are never
compared. Servers notice the switch within 15 s; a server configured for another model goes on with
the chat, recalls by words, stores no vectors and logs that once. The way back is the same command
with the earlier settings: it pays only for what was embedded again in between.

Locks: ACCESS EXCLUSIVE on embedding_models for some milliseconds, asked for 300 ms at a time.
Exit code: 0 shown, switched, or nothing to switch; 1 failed, or not confirmed.
"""

import sys
from argparse import ArgumentParser
from dataclasses import asdict, dataclass
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from retrieval import audit, current_model
from retrieval.backfill import pending
from retrieval.embeddings import bundled_models, cost, embedding_service, usage
from retrieval.management.arguments import us_dollars
from retrieval.management.operator_command import OperatorCommand
from retrieval.models import message_tables

PROBE_TEXT = "Good morning."  # one call before any change: does the new model answer?
NO_MODEL = "no embedding model is configured: set OPENAI_API_KEY, or EMBEDDINGS=local"


@dataclass(frozen=True)
class Switch:
    """A planned switch of models; ``messages`` have no vector of the new one yet."""

    old_model: str | None
    new_model: str
    messages: int

    @property
    def tokens(self) -> int:
        return self.messages * cost.TOKENS_PER_MESSAGE

    @property
    def cost_usd(self) -> float:
        return cost.cost_usd(self.tokens)

    def as_json(self) -> dict[str, Any]:
        return {
            "from": self.old_model,
            "to": self.new_model,
            "messages": self.messages,
            "tokens": self.tokens,
            "cost_usd": round(self.cost_usd, 6),
        }


class Command(OperatorCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        add = parser.add_argument
        add("action", nargs="?", choices=["use"], help="use: switch to the configured model")
        add("--yes", action="store_true", help="do not ask")
        add("--max-cost", type=us_dollars, help="US dollars; no switch if the estimate is higher")

    def run(self, **options: Any) -> None:
        if options["action"]:
            self._use(options)
        else:
            self._show(options)

    def _show(self, options: dict[str, Any]) -> None:
        models, without = current_model.models(), current_model.count_without()
        current = next((model.name for model in models if model.current), None)
        configured = embedding_service.model_to_use()
        as_json = {
            "current": current,
            "configured": configured,
            "models": [asdict(model) for model in models],
            "without": without,
        }
        lines = [
            f"{model.name}: {model.rows:,} messages{', current' if model.current else ''}"
            for model in models
        ]
        lines.append(f"without a vector: {without:,} messages")
        if current is None:
            lines.append(
                "No vectors yet: the model of the first one stored becomes the current one"
            )
        elif configured not in (None, current):
            is_followed = bundled_models.follows(current)
            subject = "The bundled model is now" if is_followed else "The settings name"
            lines.append(f"{subject} {configured}. To switch to it: manage.py rag_model use")
        self.report(options, as_json, *lines)

    def _use(self, options: dict[str, Any]) -> None:
        switch = plan_switch()
        model = switch.new_model
        if switch.old_model == model:
            as_json = {"switched": False} | switch.as_json()
            self.report(
                options, as_json, f"{model} is the current model already: nothing to switch"
            )
            return
        self._show_plan(switch, self.stderr if options["json"] else self.stdout)
        self._confirm(switch, options)
        embedding_service.submit([PROBE_TEXT], model=model).result()
        usage.flush()
        audit.record_command("rag_model use")
        current_model.switch(model)
        retried = sum(pending.retry_failed(table) for table in message_tables())
        self.report(
            options,
            {"switched": True, "taken_up_again": retried} | switch.as_json(),
            f"Switched to {model}; running servers notice within {current_model.CHECK_AGAIN_S:g} s",
            "Next: manage.py backfill_embeddings",
        )

    def _show_plan(self, switch: Switch, out: OutputWrapper) -> None:
        out.write(f"From {switch.old_model or 'no model'} to {switch.new_model}")
        out.write(f"Messages to embed again: {switch.messages:,}")
        out.write(f"Estimated tokens: {switch.tokens:,}")
        out.write(f"Estimated cost: ${switch.cost_usd:,.2f}")

    def _confirm(self, switch: Switch, options: dict[str, Any]) -> None:
        """Raises CommandError if it costs too much or the operator says no."""
        max_cost = options["max_cost"]
        if max_cost is not None and switch.cost_usd > max_cost:
            raise CommandError(
                f"not switched: the estimate, ${switch.cost_usd:,.4f},"
                f" is over --max-cost {max_cost:g}"
            )
        if options["yes"]:
            return
        if not sys.stdin.isatty():
            raise CommandError("not switched: without a terminal to ask on, --yes is needed")
        self.stderr.write("Switch? [y/N] ", ending="")
        self.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise CommandError("not switched: nothing was changed")


def plan_switch() -> Switch:
    """From the current model to the configured one. Reads both message tables.

    Counts messages without a vector of the new model, also those that the old one refused.
    Raises CommandError if no model is configured.
    """
    new_model = embedding_service.model_to_use()
    if new_model is None:
        raise CommandError(NO_MODEL)
    counts = [pending.count(table, model=new_model) for table in message_tables()]
    messages = sum(count.pending + count.failed for count in counts)
    return Switch(current_model.current_model(), new_model, messages)
