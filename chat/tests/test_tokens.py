"""Tokens and passwords: who gets in, who does not, and what is stored."""

import hashlib
import io
import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from chat.auth import login_rate_limit
from chat.auth.api_tokens import TokenAuthentication, create_token
from chat.models import ApiToken, RateWindow, StandaloneChat
from chat.tests.support import Api
from tests.support import ROOT, clean_environment, database_url

pytestmark = pytest.mark.django_db
ALICE = {"username": "alice", "password": "alice's password"}
NOBODY = b'{"detail":"Authentication credentials were not provided.","code":"not_authenticated"}'


def ask_token(**body: Any) -> Any:
    """POST to the token endpoint; ``address`` is the client's."""
    address = body.pop("address", "127.0.0.1")
    client = APIClient(raise_request_exception=False, REMOTE_ADDR=address)
    return client.post("/api/auth/token/", body, format="json")


def test_the_right_password_gets_a_token_that_works(alice: User) -> None:
    answer = ask_token(**ALICE, name="laptop")
    assert answer.status_code == 200
    assert set(answer.json()) == {"token", "id"}
    client = Client(headers={"Authorization": f"Token {answer.json()['token']}"})
    listed = client.get("/api/auth/tokens/").json()["results"]
    assert [(token["id"], token["name"]) for token in listed] == [(answer.json()["id"], "laptop")]
    assert set(listed[0]) == {"id", "name", "created_at", "last_used_at"}


@pytest.mark.parametrize(
    "body",
    [
        {"username": "alice", "password": "a guess"},
        {"username": "nobody", "password": "alice's password"},
        {"username": "alice", "password": "alice's password "},
        {"username": "alice", "password": "ALICE'S PASSWORD"},
        {"username": "alice"},
        {"password": "alice's password"},
        {"username": "", "password": ""},
        {"username": "a\0lice", "password": "alice's password"},
        {"username": "alice", "password": "x\0"},
        {"username": "alice", "password": "x" * 5000},
        {"username": "a" * 200, "password": "x"},
        {"username": ["alice"], "password": {"$ne": ""}},
        {"username": "alice", "password": "alice's password", "name": "n" * 101},
        {"username": "alice", "password": "alice's password", "name": "n\0"},
        {"username": "alice", "password": "alice's password", "name": 5},
    ],
)
def test_a_wrong_username_or_password_is_a_400_and_no_token(
    body: dict[str, Any], alice: User
) -> None:
    answer = ask_token(**body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert not ApiToken.objects.exists()
    if body.get("password"):
        assert str(body["password"]) not in answer.content.decode()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"username": "alice", "password": "\\ud800"}', 400, "invalid"),
        (b'{"username": "\\ud800", "password": "x"}', 400, "invalid"),
        (
            b'{"username": "alice", "password": "alice\'s password", "name": "\\udfff"}',
            400,
            "invalid",
        ),
        (b"[]", 400, "invalid"),
        (b'"alice"', 400, "invalid"),
        (b"null", 400, "invalid"),
        (b"5", 400, "invalid"),
        (b"{", 400, "parse_error"),
        (b"\xff\xfe", 400, "parse_error"),
        (b'{"username": NaN}', 400, "parse_error"),
        (b"", 400, "invalid"),
        (b"[" * 100_000, 400, "parse_error"),
    ],
)
def test_an_unusable_body_is_a_400_and_no_token(
    body: bytes, status: int, code: str, alice: User
) -> None:
    client = Client(raise_request_exception=False)
    answer = client.post("/api/auth/token/", body, content_type="application/json")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert not ApiToken.objects.exists()


def test_a_wrong_username_and_a_wrong_password_get_the_same_bytes(alice: User) -> None:
    wrong_password = ask_token(**ALICE | {"password": "wrong"})
    wrong_username = ask_token(**ALICE | {"username": "nobody"})
    assert wrong_password.content == wrong_username.content


def test_only_the_digest_of_a_token_is_stored(alice: User) -> None:
    key = ask_token(**ALICE).json()["token"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT row_to_json(t)::text FROM api_tokens t")
        ((row,),) = cursor.fetchall()
    assert hashlib.sha256(key.encode()).hexdigest() in row
    assert key not in row
    assert len(key) >= 43, "fewer than 256 bits"


def test_a_revoked_token_is_refused_at_once(alice: User, api: Api) -> None:
    revoking, revoked = api(alice), api(alice)
    assert revoked.get("/api/chats/").status_code == 200
    token = ApiToken.objects.order_by("id").last()
    assert token is not None
    assert revoking.delete(f"/api/auth/tokens/{token.pk}/").status_code == 204
    assert (revoked.get("/api/chats/").status_code, revoked.get("/api/chats/").content) == (
        401,
        NOBODY,
    )
    assert revoking.get("/api/chats/").status_code == 200


def test_the_token_of_an_inactive_user_is_refused(alice: User, api: Api) -> None:
    client = api(alice)
    User.objects.update(is_active=False)
    assert (client.get("/api/chats/").status_code, client.get("/api/chats/").content) == (
        401,
        NOBODY,
    )
    assert ask_token(**ALICE).status_code == 400


def test_a_token_of_a_deleted_user_is_refused(alice: User, api: Api) -> None:
    client = api(alice)
    alice.delete()
    assert client.get("/api/chats/").content == NOBODY


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=300).map(lambda raw: raw.decode("latin-1")))
@example("")
@example(" ")
@example("x" * 1_000_000)
@example("a b")
@example("\0")
@example("\x80")
@example("Token Token")
def test_every_wrong_token_gets_the_same_401(alice: User, key: str) -> None:
    for header in (f"Token {key}", f"Token  {key}", f"token {key}", f"Token{key}", f"{key}"):
        answer = Client(raise_request_exception=False).get("/api/chats/", HTTP_AUTHORIZATION=header)
        assert (answer.status_code, answer.content) == (401, NOBODY), header[:100]
        assert answer["WWW-Authenticate"] == "Token"


def test_no_token_gets_the_same_401(alice: User) -> None:
    answer = Client().get("/api/chats/")
    assert (answer.status_code, answer.content, answer["WWW-Authenticate"]) == (
        401,
        NOBODY,
        "Token",
    )


def test_spaces_around_a_token_are_not_part_of_it(alice: User) -> None:
    key = create_token(alice)[1]
    for header in (f"Token  {key}", f"token {key}", f"TOKEN {key} "):
        assert Client().get("/api/chats/", HTTP_AUTHORIZATION=header).status_code == 200
    for header in (
        f"Token {key} {key}",
        f"Token {key[:-1]}",
        f"Token {key.swapcase()}",
        f"Bearer {key}",
        key,
    ):
        assert Client().get("/api/chats/", HTTP_AUTHORIZATION=header).content == NOBODY


def test_the_time_of_last_use_is_written_once_a_minute(alice: User, api: Api) -> None:
    client = api(alice)

    def writes() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get("/api/chats/").status_code == 200
        return sum(query["sql"].startswith("UPDATE") for query in captured.captured_queries)

    assert [writes() for _ in range(4)] == [1, 0, 0, 0]
    first = ApiToken.objects.get().last_used_at
    assert first is not None
    assert timezone.now() - first < timedelta(seconds=10)
    ApiToken.objects.update(last_used_at=first - timedelta(seconds=59))
    assert writes() == 0
    ApiToken.objects.update(last_used_at=first - timedelta(seconds=61))
    assert [writes(), writes()] == [1, 0]


def test_guessing_one_accounts_password_is_slowed_for_all_addresses(alice: User, bob: User) -> None:
    for number in range(login_rate_limit.ATTEMPTS_PER_ACCOUNT):
        wrong = ALICE | {"password": f"guess {number}"}
        assert ask_token(**wrong, address=f"10.0.0.{number}").status_code == 400
    for username in ("alice", "ALICE", "Alice"):
        answer = ask_token(username=username, password="alice's password", address="10.0.1.1")
        assert (answer.status_code, answer.json()["code"]) == (429, "throttled")
        assert 0 < int(answer["Retry-After"]) <= login_rate_limit.WINDOW_S
    assert (
        ask_token(username="bob", password="bob's password", address="10.0.1.1").status_code == 200
    )
    RateWindow.objects.update(
        hits=[timezone.now() - timedelta(seconds=login_rate_limit.WINDOW_S + 1)]
    )
    assert ask_token(**ALICE).status_code == 200


@pytest.mark.soak
def test_guessing_many_accounts_passwords_is_slowed_by_address(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_rate_limit, "ATTEMPTS_PER_ADDRESS", 5)
    for number in range(5):
        assert (
            ask_token(username=f"nobody{number}", password="x", address="10.0.0.1").status_code
            == 400
        )
    answer = ask_token(**ALICE, address="10.0.0.1")
    assert (answer.status_code, answer.json()["code"]) == (429, "throttled")
    assert 0 < int(answer["Retry-After"]) <= login_rate_limit.WINDOW_S
    assert ask_token(**ALICE, address="10.0.0.2").status_code == 200


def test_the_stored_attempts_name_no_account(alice: User) -> None:
    ask_token(**ALICE)
    assert not any("alice" in name for name in RateWindow.objects.values_list("name", flat=True))


def test_a_session_may_read_and_needs_a_csrf_token_to_write(alice: User) -> None:
    chat = StandaloneChat.objects.create(user=alice, title="Mine")
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    client.force_login(alice)
    assert client.get("/api/chats/").status_code == 200
    body: dict[str, Any] = {"data": {"title": "Taken over"}, "content_type": "application/json"}
    unsafe = [
        client.post("/api/chats/", **body),
        client.patch(f"/api/chats/{chat.pk}/", **body),
        client.delete(f"/api/chats/{chat.pk}/"),
        client.post(f"/api/chats/{chat.pk}/messages/", **body),
        client.post("/api/chats/", headers={"Origin": "https://evil.example"}, **body),
        client.post("/api/chats/", {"title": "A form"}),
    ]
    assert {(answer.status_code, answer.json()["code"]) for answer in unsafe} == {
        (403, "permission_denied")
    }
    assert StandaloneChat.objects.get().title == "Mine"
    client.get("/admin/login/")
    csrf = client.cookies["csrftoken"].value
    assert client.post("/api/chats/", headers={"X-CSRFToken": csrf}, **body).status_code == 201


def test_a_token_needs_no_csrf_token_and_wins_over_a_session(alice: User, bob: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    header = {"Authorization": f"Token {create_token(bob)[1]}"}
    assert (
        client.post("/api/chats/", {}, content_type="application/json", headers=header).status_code
        == 201
    )
    assert StandaloneChat.objects.get().user == bob


def test_a_wrong_token_is_refused_even_with_a_session(alice: User) -> None:
    client = Client()
    client.force_login(alice)
    assert client.get("/api/chats/", headers={"Authorization": "Token wrong"}).content == NOBODY


def test_create_token_prints_the_token_and_nothing_else(alice: User) -> None:
    out, err = io.StringIO(), io.StringIO()
    call_command("create_token", "alice", "--name", "cron", stdout=out, stderr=err)
    key = out.getvalue().removesuffix("\n")
    assert err.getvalue() == ""
    request: Any = RequestFactory().get("/", headers={"Authorization": f"Token {key}"})
    user, token = TokenAuthentication().authenticate(request) or (None, None)
    assert (user, token and token.name) == (alice, "cron")


@pytest.mark.parametrize(
    ("user", "name"), [("nobody", "x"), ("al\nice", "x"), ("alice", "n" * 101)]
)
def test_create_token_refuses_in_one_line(user: str, name: str, alice: User) -> None:
    with pytest.raises(CommandError) as refused:
        call_command("create_token", user, "--name", name)
    assert "\n" not in str(refused.value)
    assert not ApiToken.objects.exists()


def test_create_token_for_an_unknown_user_exits_1_with_one_line(db: None) -> None:
    environment = clean_environment(DATABASE_URL=database_url(connection), SECRET_KEY="test")
    command = [sys.executable, "manage.py", "create_token", "nobody"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count(os.linesep) == 1, done.stderr
    assert "nobody" in done.stderr
