"""``python -m fake_openai``: runs the fake server, for load tests or work without an API key."""

import argparse
import signal
import threading

from fake_openai.chat import Echo
from fake_openai.embeddings import Vectors
from fake_openai.server import FakeOpenAI

KEEP = 100  # recorded requests; a load test would fill the memory


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m fake_openai", description=__doc__)
    parser.add_argument("--port", type=int, default=9100, help="0: a free port (default: 9100)")
    parser.add_argument(
        "--tokens-per-second", type=float, help="speed of an answer (default: all at once)"
    )
    parser.add_argument(
        "--first-token", type=float, default=0.0, metavar="S", help="seconds before the first token"
    )
    parser.add_argument("--tokens", type=int, help="length of every answer (default: an echo)")
    parser.add_argument(
        "--embedding-delay", type=float, default=0.0, metavar="S", help="seconds for each request"
    )
    parser.add_argument("--api-key", help="refuse every other key with 401")
    return parser.parse_args()


def main() -> None:
    """Serve until SIGINT or SIGTERM; print the base URL."""
    options = parse()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with FakeOpenAI(port=options.port, api_key=options.api_key, keep=KEEP) as fake:
        fake.chat.default = Echo(options.first_token, options.tokens_per_second, options.tokens)
        fake.embeddings.default = Vectors(options.embedding_delay)
        print(fake.base_url, flush=True)
        stopped.wait()


if __name__ == "__main__":
    main()
