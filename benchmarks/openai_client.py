"""CPU time, memory and start-up of the calls to OpenAI, compared with another checkout.

    .venv/bin/python -m benchmarks.openai_client [--before PATH] [--calls 300] [--runs 5]

The other checkout, by default of commit 41f0cd2, has the same virtual environment. Each run starts
a process in each of the two in turn, so that load on the machine affects both. A process makes
embedding calls and streamed answers (40 messages of 600 characters, 60 tokens back) to a fake
server in this process, and measures its own CPU time, without the server's. Start-up is the CPU
time of ``manage.py check``, which makes no call. Figures are the medians of the runs.
"""

import argparse
import asyncio
import json
import resource
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fake_openai import Answer, FakeOpenAI

if TYPE_CHECKING:
    from benchmarks.sides import Checkout

WARM_UP_CALLS = 20
MESSAGES = [{"role": "user", "content": "Tell me about the garden. " * 23} for _ in range(40)]
ANSWER = "The garden is green. " * 15
FIGURES = ("embedding ms", "answer ms", "memory MB", "start-up s")


def main() -> None:
    """Print the table; with ``--measure``, be one of the measured processes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="the other checkout")
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.calls)))
        return
    from benchmarks.sides import checkouts  # which the earlier checkout does not have

    runs: dict[str, list[list[float]]] = {"before": [], "now": []}
    with FakeOpenAI() as fake, checkouts(options.before) as both:
        fake.chat.default = Answer(ANSWER)
        for _ in range(options.runs):
            for checkout in both:
                runs[checkout.name].append(run(checkout, fake.base_url, options.calls))
    print(f"| | {' | '.join(FIGURES)} |\n|---|{'---|' * len(FIGURES)}")
    for name, rows in runs.items():
        medians = [statistics.median(column) for column in zip(*rows, strict=True)]
        print(f"| {name} | {' | '.join(f'{median:.2f}' for median in medians)} |")


def run(checkout: "Checkout", base_url: str, calls: int) -> list[float]:
    """The figures of one process in this checkout, and of one start of a command."""
    values = {
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": "sk-benchmark",
        "DATABASE_URL": "postgresql://verse@127.0.0.1:1/verse",
        "DJANGO_SETTINGS_MODULE": "verse.settings",
    }
    process = checkout.python(__file__, "--measure", "--calls", str(calls), **values)
    figures = json.loads(process.communicate()[0])
    before_s = child_cpu_s()
    checkout.python("manage.py", "check", **values).communicate()
    return [*figures, child_cpu_s() - before_s]


def child_cpu_s() -> float:
    """CPU time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(calls: int) -> list[float]:
    """Milliseconds of CPU per embedding and per answer, and the process's own memory in MB."""
    import django

    django.setup()
    from django.conf import settings
    from django.urls import get_resolver

    get_resolver(settings.ROOT_URLCONF).url_patterns  # noqa: B018 - loads what a worker loads
    return [embedding_ms(calls), asyncio.run(answer_ms(calls)), memory_mb()]


def memory_mb() -> float:
    """What this process shares with no other one."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024 / 1e6


def embedding_ms(calls: int) -> float:
    """CPU of an embedding call. Each has another text, so that nothing is answered from a cache."""
    from retrieval.embeddings import get_embedding

    for number in range(-WARM_UP_CALLS, calls):
        if number == 0:
            began_s = time.process_time()
        get_embedding(f"What did I say about the garden, number {number}?")
    return (time.process_time() - began_s) / calls * 1000


async def answer_ms(calls: int) -> float:
    """CPU of a streamed answer."""
    try:
        from chat.answers.llm import complete
    except ImportError:  # before modules had folders
        from chat.llm import complete  # type: ignore[import-not-found,no-redef]

    for number in range(-WARM_UP_CALLS, calls):
        if number == 0:
            began_s = time.process_time()
        await complete(MESSAGES, str)
    return (time.process_time() - began_s) / calls * 1000


if __name__ == "__main__":
    main()
