"""Show or set who is given memories. A row in the database: every process follows within 10 s.

  manage.py rag_rollout                         the state, the fuse, and how long recalls took
  manage.py rag_rollout dark                    no user; each turn recalls, and adds nothing
  manage.py rag_rollout 5% --fuse-errors 10     5 of 100 users, the same ones each time
  manage.py rag_rollout on                      all users, as before the first rag_rollout
  manage.py rag_rollout off                     no user, and nothing is recalled
  manage.py rag_rollout --user alice            and whether alice is given memories

The fuse makes the state dark when, within one minute, recall fails more than --fuse-errors times,
or 95 of 100 recalls (of at least 20) take longer than --fuse-ms. It stays as it is until another
one is given; "none" removes it. The way back is the same command.
Locks: one row that only this command and the fuse write.
"""

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError
from django.db import transaction

from retrieval import audit
from retrieval.management.operator_command import OperatorCommand
from retrieval.rollout import rollout_report, state

MAX_FUSE = 1_000_000_000
KEEP = object()  # the option is not given


def rollout_state(text: str) -> str:
    """An argparse type."""
    try:
        return state.parse(text)
    except state.UnknownState as error:
        what = "off, dark, on, or a share from 1% to 100% with one decimal at most"
        raise ArgumentTypeError(f"{text!r} is not {what}") from error


def limit(text: str) -> int | None:
    """An argparse type: a whole number, or "none"."""
    if text == "none":
        return None
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_FUSE):
        raise ArgumentTypeError(f"{text!r} is not a whole number, 0 or more, or none")
    return int(text)


class Command(OperatorCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "state", nargs="?", type=rollout_state, metavar="STATE", help="off, dark, N%% or on"
        )
        fuse: dict[str, Any] = {"type": limit, "default": KEEP}
        parser.add_argument("--fuse-ms", metavar="MS", help="95 of 100 recalls within it", **fuse)
        parser.add_argument("--fuse-errors", metavar="N", help="errors in a minute", **fuse)
        parser.add_argument("--user", metavar="NAME", help="whether this user is given memories")

    def run(self, **options: Any) -> None:
        """Raises CommandError: a fuse without a state (exit code 2), an unknown user."""
        user_id = _user_id(options["user"])
        if options["state"]:
            self._save(options)
        elif any(options[name] is not KEEP for name in ("fuse_ms", "fuse_errors")):
            raise CommandError(
                "name the state too, such as: rag_rollout on --fuse-ms 500", returncode=2
            )
        collected = rollout_report.collect()
        lines = rollout_report.lines(collected)
        if user_id is not None:
            given = state.read().gives_memories(user_id)
            collected |= {"user": options["user"], "given": given}
            lines.append(f"{options['user']} is given {'memories' if given else 'no memories'}")
        self.report(options, collected, *lines)

    def _save(self, options: dict[str, Any]) -> None:
        before, name = state.read(), options["state"]
        fuse_ms = before.fuse_ms if options["fuse_ms"] is KEEP else options["fuse_ms"]
        errors = before.fuse_errors if options["fuse_errors"] is KEEP else options["fuse_errors"]
        with transaction.atomic():
            state.save(name, fuse_ms=fuse_ms, fuse_errors=errors)
            audit.record_command(f"rag_rollout {name}")


def _user_id(name: str | None) -> int | None:
    if name is None:
        return None
    users = get_user_model()._default_manager
    user = users.filter(**{get_user_model().USERNAME_FIELD: name}).values_list("pk", flat=True)
    if not user:
        raise CommandError(f"there is no user {name}")
    return int(user[0])
