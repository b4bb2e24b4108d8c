"""Checks that the links of the docs to other sites still work: ``make links``, with a network.

    python -m tests.links [PAGE ...]

Prints each address that does not answer, with the pages that link to it; then the exit code is 1.
An address that refuses programs (401, 403, 429) is listed, but is no failure.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

from tests.pages import BLOCK
from tests.support import ROOT

ALL = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Addresses of examples and of the reader's own server.
LOCAL = re.compile(r"https?://(127\.0\.0\.1|localhost|[\w.-]*example\.(com|org))")
LINK = re.compile(r"\]\((https?://[^)\s]+)\)")
REFUSES_PROGRAMS = {401, 403, 429}
TIMEOUT_S = 20
AT_ONCE = 8
BROWSER = {"User-Agent": "Mozilla/5.0 (link check)"}


def links_of(pages: Iterable[Path]) -> dict[str, list[Path]]:
    """Every address, without its anchor, with the pages that link to it."""
    links: dict[str, list[Path]] = defaultdict(list)
    for page in pages:
        for address in LINK.findall(BLOCK.sub("", page.read_text())):
            if not LOCAL.match(address):
                links[address.partition("#")[0]].append(page)
    return dict(links)


def check(client: httpx2.Client, address: str) -> str:
    """Why the address does not work, or "" if it does. One request, redirects followed."""
    try:
        with client.stream("GET", address) as response:
            status = response.status_code
    except httpx2.HTTPError as error:
        return type(error).__name__
    return "" if status < 400 else str(status)


def broken_links(addresses: Iterable[str]) -> dict[str, str]:
    """Each address that does not work, with the reason."""
    with (
        httpx2.Client(timeout=TIMEOUT_S, follow_redirects=True, headers=BROWSER) as client,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):
        listed = sorted(addresses)
        reasons = threads.map(lambda address: check(client, address), listed)
        return {address: why for address, why in zip(listed, reasons, strict=True) if why}


def main(names: list[str]) -> int:
    """Check the pages, or all; print what does not work. Returns the exit code."""
    links = links_of([Path(name) for name in names] or ALL)
    broken = broken_links(links)
    for address, reason in broken.items():
        pages = ", ".join(sorted({page.name for page in links[address]}))
        print(f"{reason}  {address}  in {pages}")  # noqa: T201 # the result of the script
    print(f"{len(links)} addresses, {len(broken)} do not answer")  # noqa: T201 # as above
    return int(bool(set(broken.values()) - set(map(str, REFUSES_PROGRAMS))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
