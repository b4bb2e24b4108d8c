"""The link check: a real HTTP server, pages that link to it."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.links import ALL, broken_links, links_of, main
from tests.support import free_port

HOST = "127.0.0.2"  # addresses on 127.0.0.1 are examples of the docs, which are not checked


class Site(BaseHTTPRequestHandler):
    """Answers with the status that the path names; /301 redirects to /404."""

    def do_GET(self) -> None:
        status = int(self.path.strip("/"))
        self.send_response(status)
        if status == 301:
            self.send_header("Location", "/404")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    """The address of a running Site."""
    with ThreadingHTTPServer((HOST, 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{HOST}:{server.server_port}"
        server.shutdown()
        thread.join()


def test_addresses_that_do_not_answer_are_named(site: str) -> None:
    closed = f"http://127.0.0.1:{free_port()}/"
    addresses = [f"{site}/200", f"{site}/404", f"{site}/301", f"{site}/500", closed]
    assert broken_links(addresses) == {
        f"{site}/404": "404",
        f"{site}/301": "404",
        f"{site}/500": "500",
        closed: "ConnectError",
    }


@pytest.mark.parametrize(("status", "code"), [(200, 0), (403, 0), (404, 1)])
def test_only_a_broken_link_is_a_failure(
    site: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int, code: int
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"[a]({site}/{status}#part) and [b]({site}/{status})\n")
    assert main([str(page)]) == code
    printed = capsys.readouterr().out
    assert ("page.md" in printed) is (status != 200)
    assert "1 addresses" in printed


def test_the_docs_link_to_the_services_that_they_describe() -> None:
    addresses = set(links_of(ALL))
    assert {
        "https://developers.openai.com/api/docs/guides/embeddings",
        "https://developers.openai.com/api/docs/guides/spend-limits",
        "https://github.com/pgvector/pgvector",
    } <= addresses
