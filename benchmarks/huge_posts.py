"""Measures what one user's twelve huge messages at once cost another user's turns.

    .venv/bin/python -m benchmarks.huge_posts [--before FOLDER] [--rounds 5]

One worker, and a fake of the model and of the embedding service. The huge messages have 32,000
characters without a space, Chinese or English. The other user takes a turn after the other, first
alone, then while the twelve are under way. The fake and the poster are processes of their own: in
this one they would hold up the other user's client. They still use the same cores. Prints the times
of the other user's turns, and the processor time that a huge message costs worker and database.
Each commit takes a minute; 41f0cd2, which reads Chinese slowly, ten.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

import numpy as np

from benchmarks import stage, turn
from benchmarks.processes import cpu_by_pid
from benchmarks.sides import Side, checkouts, clock_ms, databases, serving

HUGE_POSTS = 12
POSTER = str(Path(__file__).with_name("huge_poster.py"))
IDLE_TURNS = 20  # of the other user, in a round
LETTERS = {
    "Chinese": "".join(map(chr, range(0x4E00, 0x5200))),
    "English": "etaoinshrdlu",
}
HEAD = (
    "| | text | alone p50 ms | p95 | meanwhile p50 ms | p95 "
    "| worker CPU ms | database CPU ms | failed |"
)


def main() -> None:
    """Print a line for each commit and language."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="an earlier checkout to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(HEAD)
    print("|---|---|---|---|---|---|---|---|---|")
    with (
        checkouts(options.before) as both,
        databases(both) as sides,
        stage.model("--tokens", "2") as url,
    ):
        service = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "sk-benchmark"}
        others = {side.name: turn.remember(side, turn.MESSAGES, service) for side in sides}
        posters = {side.name: side.sign_up("poster") for side in sides}
        with serving(sides, LLM_BASE_URL=url, **service):
            for language in LETTERS:
                for side in sides:
                    measured = Measured(side, others[side.name], posters[side.name])
                    for _ in range(options.rounds):
                        measured.round(language)
                    print(f"| {side.name} | {language} | {measured.cells()} |", flush=True)


class Measured:
    """The times of one commit's turns, and what the huge messages cost."""

    def __init__(self, side: Side, other: str, poster: str) -> None:
        self.side, self.other, self.poster = side, other, poster
        self.alone: list[float] = []
        self.meanwhile: list[float] = []
        self.cost = np.zeros(2)
        self.posted = self.failed = 0

    def round(self, language: str) -> None:
        """Turns of the other user alone, then while the poster's messages are under way."""
        self.alone += [self.turn() for _ in range(IDLE_TURNS)]
        chats = [self.side.create_chat("poster") for _ in range(HUGE_POSTS)]
        before, turns_before = self.cpu(), len(self.meanwhile)
        assert self.side.server
        command = [sys.executable, POSTER, self.side.server.url, self.poster, LETTERS[language]]
        with subprocess.Popen([*command, *map(str, chats)], stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()  # the texts are made, the posts begin
            while process.poll() is None:
                self.meanwhile.append(self.turn())
        self.failed += process.returncode
        time.sleep(1)  # embeddings are stored
        cost = self.cpu() - before
        before = self.cpu()
        turns = len(self.meanwhile) - turns_before
        for _ in range(turns):
            self.turn()
        self.cost += cost - (self.cpu() - before)
        self.posted += HUGE_POSTS

    def turn(self) -> float:
        """Milliseconds of a turn of the other user."""
        chat, client = self.side.create_chat(turn.USERNAME), self.side.client(self.other)
        body = {"content": f"What did I say about the {random.choice(turn.WORDS)}?"}
        started = clock_ms()
        response = client.post(f"/api/chats/{chat}/messages/", json=body)
        self.failed += not response.is_success
        return clock_ms() - started

    def cpu(self) -> np.ndarray:
        """Milliseconds of the worker and of the database's processes."""
        pids = self.side.worker_pids(), self.side.backend_pids()
        return np.array([sum(cpu_by_pid(of).values()) for of in pids])

    def cells(self) -> str:
        """The figures of a line."""
        times = [np.percentile(of, at) for of in (self.alone, self.meanwhile) for at in (50, 95)]
        figures = (*times, *self.cost / self.posted, self.failed)
        return " | ".join(f"{figure:.0f}" for figure in figures)


if __name__ == "__main__":
    main()
