"""The page of imports: what it shows and does, each user's own."""

import time
from io import BytesIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from chat.models import MemoryImport, StandaloneChatMessage
from chat.tests.product_exports import as_json, talk
from tests.support import PATIENCE_S

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
PAGE = "/memory/import/"


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def upload(client: Client, content: bytes, **fields: Any) -> Any:
    file = BytesIO(content)
    file.name = "export.json"
    return client.post(PAGE, {"file": file, "format": "chatgpt"} | fields)


def html_once_ended(client: Client) -> str:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        html = client.get(PAGE).content.decode()
        if "running" not in html:
            return html
        time.sleep(0.02)
    raise AssertionError(html)


def test_an_import_is_begun_shown_and_removed(alice: User, bob: User) -> None:
    client = signed_in(alice)
    assert "None yet." in client.get(PAGE).content.decode()
    assert upload(client, as_json(talk("1", "Hi", "Hello", ""))).headers["Location"] == PAGE
    html = html_once_ended(client)
    assert "chatgpt: done" in html
    assert "2 messages in 1 conversations were added. Left out: 1 without text." in html
    number = MemoryImport.objects.get().pk
    assert "None yet." in signed_in(bob).get(PAGE).content.decode()
    assert "Not found." in signed_in(bob).post(PAGE, {"remove": number}).content.decode()
    assert StandaloneChatMessage.objects.count() == 2
    for odd in ("9" * 5_000, "-1", "one"):
        assert "Not found." in client.post(PAGE, {"remove": odd}).content.decode()
    assert client.post(PAGE, {"remove": number}).headers["Location"] == PAGE
    assert not StandaloneChatMessage.objects.exists()


def test_problems_stand_on_the_page(alice: User) -> None:
    client = signed_in(alice)
    for wrong in (client.post(PAGE, {}), upload(client, b"", format="zip")):
        assert "Choose a file, and where it comes from." in wrong.content.decode()
    upload(client, b"<script>alert(1)</script>")
    assert "Nothing was imported: the file is no JSON array" in html_once_ended(client)
    MemoryImport(user=alice, format="claude", status="running").save(force_insert=True)
    assert "An import of yours is running" in upload(client, b"[]").content.decode()
    assert "Look again" in client.get(PAGE).content.decode()


def test_the_page_needs_its_own_token_against_other_sites(alice: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    assert upload(client, b"[]").status_code == 403
    assert not MemoryImport.objects.exists()
