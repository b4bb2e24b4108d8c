"""An address that leads to the wrong server for a while, as DNS and virtual addresses do.

Connections that were opened meanwhile must not stay.
"""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from fake_openai import FakeOpenAI
from tests.cluster.parts import run_command
from tests.replicated import PostgresServer, copy_to_replica, replicated_servers
from tests.support import Server, wait_for

pytestmark = pytest.mark.soak
NEW_USER = "from django.contrib.auth.models import User; User.objects.create(username='alice')"
SESSIONS = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'verse %'"
HAS_REPLAYED = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
AGAIN = "The read replica is read from again"


class Address:
    """A folder for sockets that leads to one server, then to another."""

    def __init__(self, link: Path, server: PostgresServer) -> None:
        self._link = link
        self.url = server.url.replace(str(server.folder), str(link))
        self.lead_to(server)

    def lead_to(self, server: PostgresServer) -> None:
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(server.folder)


@dataclass
class Site:
    """Addresses of a primary and a replica, and the settings that name them."""

    primary: PostgresServer
    replica: PostgresServer
    primary_address: Address
    replica_address: Address
    settings: dict[str, str]
    token: str

    def client(self, server: Server) -> httpx2.Client:
        return server.client(self.token)


@pytest.fixture
def site(openai_server: FakeOpenAI) -> Iterator[Site]:
    openai_server.reset()
    folder = Path(tempfile.mkdtemp(prefix="verse-"))  # a socket's path is short
    with replicated_servers() as (primary, replica):
        addresses = Address(folder / "primary", primary), Address(folder / "replica", replica)
        settings = {
            "DATABASE_URL": addresses[0].url,
            "DATABASE_REPLICA_URL": addresses[1].url,
            "SECRET_KEY": "test",
            "PGOPTIONS": "",
            "LLM_BASE_URL": openai_server.base_url,
            "EMBEDDINGS": "none",
        }
        run_command(settings, "migrate")
        run_command(settings, "shell", "-v0", "-c", NEW_USER)
        token = run_command(settings, "create_token", "alice").strip()
        yield Site(primary, replica, *addresses, settings, token)
    shutil.rmtree(folder)


def new_chat_status(client: httpx2.Client) -> int:
    return client.post("/api/chats/", json={}).status_code


def test_connections_to_a_standby_do_not_stay(site: Site) -> None:
    (position,) = site.primary.run("SELECT pg_current_wal_lsn()::text")[0]
    wait_for(lambda: site.replica.run(HAS_REPLAYED, position) == [(True,)])
    site.primary_address.lead_to(site.replica)
    server = Server(site.settings | {"DATABASE_REPLICA_URL": ""})
    try:
        client = site.client(server)
        assert new_chat_status(client) == 503
        site.primary_address.lead_to(site.primary)
        wait_for(lambda: new_chat_status(client) == 201)
    finally:
        server.end()


def test_connections_to_a_promoted_replica_do_not_stay(site: Site) -> None:
    server = Server(dict(site.settings))
    try:
        client = site.client(server)
        wait_for(lambda: client.get("/api/chats/") and site.replica.run(SESSIONS))
        site.primary.kill()
        site.replica.run("SELECT pg_promote()")
        site.primary_address.lead_to(site.replica)
        wait_for(lambda: new_chat_status(client) == 201)
        copy_to_replica(site.replica, site.primary)
        site.primary.start()
        site.replica_address.lead_to(site.primary)
        wait_for(lambda: client.get("/api/chats/") and AGAIN in server.log)
        wait_for(lambda: client.get("/api/chats/") and site.primary.run(SESSIONS))
    finally:
        server.end()
