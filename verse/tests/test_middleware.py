"""Requests with an API token have no session; all others have Django's own."""

import json
import sys
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest, JsonResponse
from django.test import Client, override_settings
from django.urls import path

from chat.auth.api_tokens import create_token

pytestmark = pytest.mark.django_db


def attributes(request: HttpRequest) -> JsonResponse:
    """What the middleware of sessions has added to the request."""
    names = ("session", "user", "_messages")
    return JsonResponse([name for name in names if hasattr(request, name)], safe=False)


urlpatterns = [path("api/attributes/", attributes), path("admin/attributes/", attributes)]


@pytest.fixture
def views() -> Iterator[None]:
    """This module's URLs."""
    with override_settings(ROOT_URLCONF=sys.modules[__name__]):
        yield


@pytest.mark.usefixtures("views")
@pytest.mark.parametrize(
    ("address", "header", "added"),
    [
        ("/api/attributes/", "Token x", []),
        ("/api/attributes/", "token", []),
        ("/api/attributes/", "Bearer x", ["session", "user", "_messages"]),
        ("/api/attributes/", "", ["session", "user", "_messages"]),
        ("/admin/attributes/", "Token x", ["session", "user", "_messages"]),
    ],
)
def test_only_api_requests_with_a_token_pass_by_sessions(
    address: str, header: str, added: list[str]
) -> None:
    answer = Client().get(address, headers={"Authorization": header})
    assert json.loads(answer.content) == added


def test_a_token_opens_no_admin_page(alice: User) -> None:
    User.objects.update(is_staff=True, is_superuser=True)
    header = {"Authorization": f"Token {create_token(alice)[1]}"}
    assert Client().get("/admin/", headers=header).status_code == 302


def test_the_admin_login_needs_a_csrf_token_even_with_an_api_token(alice: User) -> None:
    header = {"Authorization": f"Token {create_token(alice)[1]}"}
    credentials = {"username": "alice", "password": "alice's password"}
    client = Client(enforce_csrf_checks=True)
    assert client.post("/admin/login/", credentials, headers=header).status_code == 403
    User.objects.update(is_staff=True)
    client.get("/admin/login/")
    credentials["csrfmiddlewaretoken"] = client.cookies["csrftoken"].value
    assert client.post("/admin/login/", credentials).status_code == 302
    assert client.get("/admin/").status_code == 200


def test_a_token_request_with_a_session_cookie_answers_for_the_token(
    alice: User, bob: User
) -> None:
    client = Client()
    client.force_login(alice)
    header = {"Authorization": f"Token {create_token(bob)[1]}"}
    answer = client.delete(
        "/api/memory/", {"confirm": "bob"}, content_type="application/json", headers=header
    )
    assert answer.status_code == 200
    assert "Cookie" not in answer.get("Vary", "")
