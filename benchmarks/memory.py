"""Measures recall and four other ways to find the messages that answer a question.

    .venv/bin/python -m benchmarks.memory [--data FILE ...] [--model all-MiniLM-L6-v2]

R@5 and R@10: the share of a question's evidence that is among the first 5 or 10 messages, as a mean
over all questions, in percent. The project's own small data set is always measured; MEMORY_DATA or
``--data`` adds files in the format of docs/evaluation.md. Also counts the greetings and general
questions for which something is recalled.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
os.environ["EMBEDDINGS"] = "local"
django.setup()

import numpy as np
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command

from benchmarks.memory_sets import Asked, DataSet, Person, load, small_talk
from benchmarks.memory_ways import SearchablePerson
from benchmarks.stage import scratch_database
from chat.memory.recall import search
from retrieval.embeddings import get_embeddings_batch
from retrieval.embeddings.bundled_models import BY_SETTING
from retrieval.recall.candidates import Scope
from retrieval.recall.greetings import is_greeting


class Result(NamedTuple):
    """How much of a question's evidence a way has found: shares of 0 to 1."""

    person: str
    category: str
    at_5: float
    at_10: float
    latest_at_5: float | None  # 1 if the latest fact is among the first 5; None: it never changed


def main() -> None:
    """Print a table for each data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    paths = [Path(path) for path in os.environ.get("MEMORY_DATA", "").split(os.pathsep) if path]
    parser.add_argument("--data", type=Path, nargs="*", default=paths, help="more data sets")
    parser.add_argument("--model", choices=BY_SETTING, default="minilm+use")
    options = parser.parse_args()
    settings.EMBEDDING_MODEL = options.model
    for data in load(options.data):
        with scratch_database():
            people = [with_vectors(person) for person in import_and_embed(data)]
            print(f"\n## {data.name}, {options.model}\n", flush=True)
            report(data, people)


def import_and_embed(data: DataSet) -> list[Person]:
    """Import and embed the messages, with a user for each person. Returns the persons."""
    lines = [
        json.dumps(
            {
                "user": person.name,
                "conversation": f"{person.name} {message.chat}",
                "role": message.role,
                "content": message.content,
                "created_at": message.created_at,
            }
        )
        for person in data.people
        for message in person.messages
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("\n".join(lines))
        file.flush()
        call_command("import_messages", file.name, "--create-users", verbosity=0)
    call_command("backfill_embeddings", "--sleep", "0", "--vacuum", verbosity=0)
    return data.people


def with_vectors(person: Person) -> SearchablePerson:
    """The person, with the vectors that recall has too, for the other ways."""
    vectors = get_embeddings_batch([message.content for message in person.messages])
    return SearchablePerson(person, User.objects.get(username=person.name), np.array(vectors))


def report(data: DataSet, people: list[SearchablePerson]) -> None:
    """Print a row for each way: all questions, each person's, each category's; then greetings."""
    names = [person.name for person in data.people]
    questions = (question for person in data.people for question in person.questions)
    categories = sorted({question.category for question in questions})
    head = ["R@5 / R@10", "all", "spread over people", *names, *categories, "latest fact in 5"]
    print(f"| {' | '.join(head)} |")
    print("|---" * len(head) + "|")
    for way in people[0].ways():
        results = [
            score(person.person.name, question, person.ways()[way](question.text))
            for person in people
            for question in person.person.questions
        ]
        of_people = [[row for row in results if row.person == name] for name in names]
        cells = [shares(results), spread(of_people), *map(shares, of_people)]
        cells += [shares(row for row in results if row.category == kind) for kind in categories]
        latest = [row.latest_at_5 for row in results if row.latest_at_5 is not None]
        print(f"| {way} | {' | '.join(cells)} | {percent(latest)} |", flush=True)
    answered = [
        not is_greeting(question)
        and bool(search(question, Scope(person.user.pk), limit=5).memories)
        for person in people
        for questions in small_talk().values()
        for question in questions
    ]
    print(f"\nGreetings and general questions that get something: {percent(answered)} %")


def score(person: str, question: Asked, refs: list[str]) -> Result:
    """How much of the question's evidence is among the first 5 and 10 refs."""
    ranks = [
        next((rank for rank, ref in enumerate(refs, 1) if ref in same), None)
        for same in question.evidence
    ]
    at_5, at_10 = (mean(rank is not None and rank <= k for rank in ranks) for k in (5, 10))
    latest = float(at_5 > 0) if question.stale else None
    return Result(person, question.category, at_5, at_10, latest)


def shares(results: Iterable[Result]) -> str:
    """The cell of these results: R@5 / R@10."""
    rows = list(results)
    return f"{percent([row.at_5 for row in rows])} / {percent([row.at_10 for row in rows])}"


def spread(of_people: list[list[Result]]) -> str:
    """The standard deviations of the people's R@5 and R@10, in points."""
    at_5 = [mean(row.at_5 for row in rows) for rows in of_people]
    at_10 = [mean(row.at_10 for row in rows) for rows in of_people]
    if len(at_5) == 1:
        return "–"
    return f"± {100 * stdev(at_5):.0f} / {100 * stdev(at_10):.0f}"


def percent(values: list[float] | list[bool]) -> str:
    return f"{100 * mean(values):.0f}" if values else ""


if __name__ == "__main__":
    main()
