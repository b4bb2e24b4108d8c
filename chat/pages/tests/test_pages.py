"""The pages' addresses, who may see them, and the Content-Security-Policy of all pages."""

import hashlib
import re
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client

from chat.samples.loading import has_samples, load

pytestmark = pytest.mark.django_db(transaction=True)
PAGES = ["/", "/chats/1/", "/passages/7/", "/memory/", "/memory/import/"]
FORBIDDEN = ["default-src 'none'", "object-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"]
STATIC = Path(__file__).parent.parent / "static" / "pages"
VENDORED = (STATIC / "vendor" / "README.md").read_text()


@pytest.fixture
def signed_in(alice: User) -> Client:
    client = Client()
    client.force_login(alice)
    return client


@pytest.mark.parametrize("page", PAGES)
def test_a_page_asks_to_sign_in_and_comes_back(page: str, alice: User) -> None:
    client = Client()
    assert client.get(page)["Location"] == f"/accounts/login/?next={page}"
    form = {"username": "alice", "password": "alice's password", "next": page}
    assert client.post("/accounts/login/", form)["Location"] == page
    assert client.get(page).status_code == 200
    assert client.get("/accounts/login/")["Location"] == "/"
    assert "Clear-Site-Data" not in client.get("/accounts/logout/")
    assert client.post("/accounts/logout/")["Location"] == "/accounts/login/"
    assert client.get(page).status_code == 302


@pytest.mark.parametrize("page", [*PAGES, "/accounts/login/", "/admin/", "/api/docs/", "/nothing/"])
def test_every_page_has_a_policy_without_inline_scripts(page: str, admin_client: Client) -> None:
    response = admin_client.get(page)
    policy = response["Content-Security-Policy"]
    assert all(part in policy for part in FORBIDDEN)
    assert ("unsafe" in policy) == (page == "/api/docs/")
    assert "script-src 'self';" in policy
    html = response.content.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=", html)
    assert page == "/api/docs/" or not re.search(r"<style|\sstyle=", html)


@pytest.mark.parametrize("page", PAGES)
def test_no_page_is_kept_for_who_goes_back_after_signing_out(page: str, signed_in: Client) -> None:
    assert "no-store" in signed_in.get(page)["Cache-Control"]


def test_browsers_that_ask_for_an_icon_get_one(client: Client) -> None:
    assert client.get("/favicon.ico")["Location"] == "/static/pages/icon.svg"


@pytest.mark.parametrize("page", ["/accounts/login/", "/admin/login/"])
def test_login_attempts_are_limited(page: str, alice: User) -> None:
    client, form = Client(), {"username": "alice", "password": "wrong"}
    answers = [client.post(page, form).content.decode() for _ in range(11)]
    assert all("correct username and password" in answer for answer in answers[:10])
    assert "Too many attempts" in answers[10]


def test_sample_questions_stand_on_the_page_of_who_has_the_samples(
    signed_in: Client, alice: User
) -> None:
    question = "What did I learn from Remedios?"
    assert question not in signed_in.get("/").content.decode()
    load(alice)
    assert has_samples(alice)
    assert question in signed_in.get("/").content.decode()


@pytest.mark.parametrize("name", [path.name for path in (STATIC / "vendor").glob("*.js")])
def test_a_vendored_file_is_the_one_that_the_list_names(name: str) -> None:
    digest = hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest()
    assert re.search(rf"\| {name} \|.*{digest}", VENDORED)


def test_our_own_javascript_has_less_than_40_kb() -> None:
    assert sum(path.stat().st_size for path in STATIC.glob("*.js")) < 40_000
