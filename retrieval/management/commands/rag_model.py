"""Show which model the stored vectors come from, and switch to another. Contract section 5."""

import sys
from argparse import ArgumentParser
from dataclasses import dataclass
from typing import Any

from django.core.management.base import CommandError

from retrieval import current_model
from retrieval.backfill import pending
from retrieval.embeddings import cost, embedding_service, usage
from retrieval.management.operator_command import OperatorCommand, number
from retrieval.models import message_tables

HELP = """\
Show which embedding model the stored vectors come from, and how many messages have one by which model.

  manage.py rag_model                          look
  manage.py rag_model use                      switch to the configured model, after showing the cost and asking
  manage.py rag_model use --yes --max-cost 5   for a script; not where the estimate is over 5 US dollars

The switch is safe under traffic. New messages are embedded by the new model at once; the others are found by words
until backfill_embeddings has embedded them anew. Vectors of two models are never compared. Servers notice within
15 s; one that is configured otherwise goes on chatting, recalls by words, stores no vectors and says so once. The way
back is the same command with the earlier settings: it pays for what was embedded anew meanwhile, and no more.

Locks: ACCESS EXCLUSIVE on embedding_models for some milliseconds, asked for 300 ms at a time, with pauses.
Exit code: 0 shown, switched, or nothing to switch; 1 failed, or not confirmed."""
GREETING = (
    "Good morning."  # one call, before anything is changed: does the new model answer as it should?
)
NO_MODEL = "no embedding model is configured: set OPENAI_API_KEY, or EMBEDDINGS=local"


@dataclass(frozen=True)
class Plan:
    """A switch, and what embedding everything anew would take."""

    before: str | None
    after: str
    messages: int

    @property
    def tokens(self) -> int:
        """As rag_cost_estimate estimates them."""
        return self.messages * cost.TOKENS_PER_MESSAGE

    @property
    def cost_usd(self) -> float:
        """With the configured model, in US dollars."""
        return cost.cost_usd(self.tokens)

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        estimate = {
            "messages": self.messages,
            "tokens": self.tokens,
            "cost_usd": round(self.cost_usd, 6),
        }
        return {"from": self.before, "to": self.after} | estimate


class Command(OperatorCommand):
    """Show, or estimate, ask, try, switch."""

    help = HELP

    def add_arguments(self, parser: ArgumentParser) -> None:
        """What to do, and what to ask."""
        dollars = number(0, float, "an amount in US dollars, 0 or more")
        parser.add_argument(
            "action", nargs="?", choices=["use"], help="use: switch to the configured model"
        )
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument(
            "--max-cost", type=dollars, help="US dollars; switch only where the estimate is within"
        )

    def run(self, **options: Any) -> None:
        """Look, or switch."""
        if options["action"]:
            self._use(options)
        else:
            self._show(as_json=options["json"])

    def _show(self, *, as_json: bool) -> None:
        found, without = current_model.models(), current_model.count_without()
        configured, current = (
            embedding_service.model_name(),
            next((one.name for one in found if one.current), None),
        )
        if as_json:
            listed = [{"name": one.name, "current": one.current, "rows": one.rows} for one in found]
            self.write_json(
                {"current": current, "configured": configured, "models": listed, "without": without}
            )
            return
        for one in found:
            self.stdout.write(
                f"{one.name}: {one.rows:,} messages{', current' if one.current else ''}"
            )
        self.stdout.write(f"without a vector: {without:,} messages")
        if current is None:
            self.stdout.write(
                "No vectors yet: the model of the first one stored becomes the current one"
            )
        elif configured not in (None, current):
            self.stdout.write(
                f"The settings name {configured}. To switch to it: manage.py rag_model use"
            )

    def _use(self, options: dict[str, Any]) -> None:
        plan = plan_of_switch()
        if plan.before == plan.after:
            self._say_unchanged(plan, as_json=options["json"])
            return
        self._say_plan(plan, to=self.stderr if options["json"] else self.stdout)
        self._confirm(plan, options)
        embedding_service.get_embedding(GREETING)
        usage.flush()
        current_model.switch(plan.after)
        again = sum(pending.take_up_again(one) for one in message_tables())
        if options["json"]:
            self.write_json({"switched": True, "taken_up_again": again} | plan.as_json())
            return
        self.stdout.write(
            f"Switched to {plan.after}; running servers notice within {current_model.CHECK_AGAIN_S:g} s"
        )
        self.stdout.write("Next: manage.py backfill_embeddings")

    def _say_unchanged(self, plan: Plan, *, as_json: bool) -> None:
        if as_json:
            self.write_json({"switched": False} | plan.as_json())
        else:
            self.stdout.write(f"{plan.after} is the current model already: nothing to switch")

    def _say_plan(self, plan: Plan, *, to: Any) -> None:
        to.write(f"From {plan.before or 'no model'} to {plan.after}")
        to.write(f"Messages to embed anew: {plan.messages:,}")
        to.write(f"Estimated tokens: {plan.tokens:,}")
        to.write(f"Estimated cost: ${plan.cost_usd:,.2f}")

    def _confirm(self, plan: Plan, options: dict[str, Any]) -> None:
        """Raises CommandError where the switch is not wanted."""
        most = options["max_cost"]
        if most is not None and plan.cost_usd > most:
            raise CommandError(
                f"not switched: the estimate, ${plan.cost_usd:,.4f}, is over --max-cost {most:g}"
            )
        if options["yes"]:
            return
        if not sys.stdin.isatty():
            raise CommandError("not switched: without a terminal to ask on, --yes is needed")
        self.stderr.write("Switch? [y/N] ", ending="")
        self.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise CommandError("not switched: nothing was changed")


def plan_of_switch() -> Plan:
    """From the current model to the configured one. Reads both tables of messages. CommandError: none is configured.

    Counted are messages without a vector of the new model, also those that the old one refused.
    """
    name = embedding_service.model_name()
    if name is None:
        raise CommandError(NO_MODEL)
    counts = [pending.count(one, model=name) for one in message_tables()]
    return Plan(
        current_model.current_model(), name, sum(one.pending + one.failed for one in counts)
    )
