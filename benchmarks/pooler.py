"""Measures turns and searches behind a pooler that keeps no state of a session.

    .venv/bin/python -m benchmarks.pooler [--quick] [--json FILE]

Three servers of this checkout, in turns: one is connected to the database, one to a program that
passes messages on, and one to the same program that also ends each transaction with DISCARD ALL,
the strictest rule of a pooler in transaction mode. Each server has one worker and a database of its
own, in which a user has 200 embedded messages. The processor time of the program is not counted.
"""

import argparse
import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, cast
from urllib.parse import parse_qs, urlsplit

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from benchmarks import requests, results, turn
from benchmarks.sides import NO_LIMITS, Checkout, Side, databases, in_turns
from fake_openai import Answer, FakeOpenAI
from tests.support import ROOT, Server

# How sessions are treated: the options of tests.discarding_pooler; None: without it.
SIDES: dict[str, list[str] | None] = {
    "direct": None,
    "kept": ["--keep-sessions"],
    "discarded": [],
}
COLUMNS = ("worker", "backend", "p50")


def main() -> None:
    """Measure, and print each figure, and what discarding costs as ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    figures = measure(blocks=6 if options.quick else 20)
    print("| | sessions | worker CPU ms | backend CPU ms | p50 ms |\n|---|---|---|---|---|")
    for work, by_side in figures.items():
        for side, costs in by_side.items():
            cells = " | ".join(f"{costs[column]:.1f}" for column in COLUMNS)
            print(f"| {work} | {side} | {cells} |")
    ratios = ratios_of(figures)
    results.finish({"figures": figures, "ratios": ratios}, options.json)


def measure(*, blocks: int) -> dict[str, dict[str, dict[str, float]]]:
    """The costs of a turn and of a search, by side's name."""
    with (
        databases([Checkout(name, ROOT) for name in SIDES]) as sides,
        FakeOpenAI() as fake,
        contextlib.ExitStack() as stack,
    ):
        fake.chat.default = Answer("I see.")
        service = {"OPENAI_BASE_URL": fake.base_url, "OPENAI_API_KEY": "sk-benchmark"}
        tokens = {side.name: turn.remember(side, turn.MESSAGES, service) for side in sides}
        for side in sides:
            stack.enter_context(serving(side, service))
        works = {
            "a turn": partial(turn.turns, fake=fake, tokens=tokens),
            "a search": partial(
                requests.send, request=requests.REQUESTS["memory search"], tokens=tokens
            ),
        }
        return {name: in_turns(sides, work, blocks=blocks) for name, work in works.items()}


@contextlib.contextmanager
def serving(side: Side, service: dict[str, str]) -> Iterator[None]:
    """Run a server of this side."""
    with database_url_of(side) as url:
        urls = {"DATABASE_URL": url, "DATABASE_DIRECT_URL": side.url}
        side.server = Server(urls | NO_LIMITS | service)
        try:
            yield
        finally:
            side.end_server()


@contextlib.contextmanager
def database_url_of(side: Side) -> Iterator[str]:
    """Where this side's server reaches the database."""
    options, direct = SIDES[side.name], urlsplit(side.url)
    if options is None:
        yield side.url
        return
    ((host,), (port,), (user,)) = (parse_qs(direct.query)[key] for key in ("host", "port", "user"))
    pooler = side.checkout.python(
        "-m", "tests.discarding_pooler", f"{host}/.s.PGSQL.{port}", *options
    )
    try:
        pooler_port = cast("IO[str]", pooler.stdout).readline().strip()
        yield f"postgresql://{user}@127.0.0.1:{pooler_port}{direct.path}"
    finally:
        pooler.kill()
        pooler.wait()


def ratios_of(figures: dict[str, dict[str, dict[str, float]]]) -> dict[str, float]:
    """What each costs with sessions discarded, divided by what it costs with sessions kept."""
    return {
        f"{work}, {column}": round(by_side["discarded"][column] / by_side["kept"][column], 2)
        for work, by_side in figures.items()
        for column in COLUMNS
    }


if __name__ == "__main__":
    main()
