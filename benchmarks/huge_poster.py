"""Posts huge messages at once, one in each chat: a program of ``huge_posts``.

python huge_poster.py URL TOKEN LETTERS CHAT ...

Prints a line when the posts begin. The exit code is the number of those that failed.
"""

import random
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx2

HUGE_CHARS = 32_000


def main() -> None:
    """Make the texts, then post them."""
    url, token, letters, *chats = sys.argv[1:]
    texts = ["".join(random.choices(letters, k=HUGE_CHARS)) for _ in chats]
    headers = {"Authorization": f"Token {token}"}

    def has_failed(chat: str, text: str) -> bool:
        return not client.post(f"/api/chats/{chat}/messages/", json={"content": text}).is_success

    client = httpx2.Client(base_url=url, headers=headers, timeout=60, trust_env=False)
    print("posting", flush=True)
    with ThreadPoolExecutor(len(chats)) as pool:
        sys.exit(sum(pool.map(has_failed, chats, texts)))


if __name__ == "__main__":
    main()
