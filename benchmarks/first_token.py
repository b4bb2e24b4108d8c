"""Measures how soon an answer begins, and how much of its prompt the model has read before.

    .venv/bin/python -m benchmarks.first_token [--before PATH] [--json FILE]

A conversation of 40 short turns with memory by words, whose prompts a fake of the model records, in
this checkout and in an earlier one. Then the bundled model is given the prompts of the turns 4 and
5, 19 and 20, 39 and 40, and asked for one token. It keeps what it has read of the prompt before, as
the servers of providers do. About a minute.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

import httpx2
from django.conf import settings

from benchmarks.sides import Side, checkouts, databases, serving
from chat.answers import local_llm
from fake_openai import Answer, FakeOpenAI

TURNS = 40
SHOWN = (5, 20, 40)
WINDOW = {"LLM_CONTEXT_TOKENS": "2048", "LLM_MAX_TOKENS": "512"}  # the bundled model's
THINGS = "bread dog train choir roof garden rain school letter money".split()  # noqa: SIM905
FACT = """
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    SELECT user_id, id, 'user', %(content)s, now() FROM standalone_chats WHERE id = %(chat)s
"""
ANSWER = "That sounds good. I would keep it simple, write down what works, and try it again soon."

Message = dict[str, Any]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="another checkout than commit 41f0cd2")
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    options = parser.parse_args()
    with checkouts(options.before) as both, databases(both) as sides:
        prompts = {side.name: conversation(side) for side in sides}
    figures = {name: replay(sent) for name, sent in prompts.items()}
    print("| | " + " | ".join(f"turn {turn}" for turn in SHOWN) + " | of a prompt read before |")
    print("|---|" + "---|" * (len(SHOWN) + 1))
    for name, figure in figures.items():
        shares = ", ".join(f"{share:.0%}" for share in figure["reused"])
        times = " | ".join(
            f"{figure['first_token_ms'][turn] / 1000:.1f} s, {figure['tokens_read'][turn]} tokens"
            for turn in map(str, SHOWN)
        )
        print(f"| {name} | {times} | {shares} |")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def conversation(side: Side) -> list[list[Message]]:
    """The prompts of the turns."""
    with FakeOpenAI() as fake:
        fake.chat.default = Answer(ANSWER)
        service = {"LLM_BASE_URL": fake.base_url, "LLM_MODEL": "gpt-4", "EMBEDDINGS": "none"}
        token, facts = side.sign_up("speaker"), side.create_chat("speaker")
        for number in range(50):
            content = f"My {THINGS[number % 10]} number {number} was fine, and Anna heard of it."
            side.database.execute(FACT, {"chat": facts, "content": content})
        chat = side.create_chat("speaker")
        with serving([side], **WINDOW, **service):
            for number in range(TURNS):
                content = f"How should I go on with my {THINGS[number % 10]} on day {number}?"
                address = f"/api/chats/{chat}/messages/"
                answer = side.client(token).post(address, json={"content": content})
                answer.raise_for_status()
        return [request.messages for request in fake.chat.requests]


def replay(prompts: list[list[Message]]) -> dict[str, Any]:
    """Milliseconds to the first token of the shown turns, and the share of tokens read before."""
    settings.LLM_CONTEXT_TOKENS = int(WINDOW["LLM_CONTEXT_TOKENS"])
    local_llm._serve.cache_clear()  # noqa: SLF001 - a new server has read nothing
    server = local_llm.serve()
    times: dict[str, float] = {}
    read: dict[str, int] = {}
    reused: list[float] = []
    headers = {"Authorization": f"Bearer {server.key}"}
    with httpx2.Client(headers=headers, timeout=120, trust_env=False) as client:
        for turn in sorted({*SHOWN, *(shown - 1 for shown in SHOWN)}):
            body = {"messages": prompts[turn - 1], "max_tokens": 1}
            began = time.perf_counter()
            answer = client.post(f"{server.base_url}/chat/completions", json=body).json()
            times[str(turn)] = 1000 * (time.perf_counter() - began)
            timings = answer["timings"]
            share = timings["cache_n"] / (timings["cache_n"] + timings["prompt_n"])
            reused += [share] * (turn in SHOWN)
            read[str(turn)] = timings["prompt_n"]
    return {"first_token_ms": times, "tokens_read": read, "reused": reused}


if __name__ == "__main__":
    main()
