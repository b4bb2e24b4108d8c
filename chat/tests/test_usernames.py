"""A username in either Unicode form names the same user."""

import io

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from rest_framework.test import APIClient

from chat.auth.usernames import find_user
from chat.models import ApiToken
from chat.tests.support import Api

pytestmark = pytest.mark.django_db
COMPOSED, DECOMPOSED = "José", "Jose\u0301"


@pytest.fixture
def jose(db: None) -> User:
    return User.objects.create_user(DECOMPOSED, password="pink sails on a lake")


@pytest.mark.parametrize("name", [COMPOSED, DECOMPOSED])
def test_either_form_gets_a_token(jose: User, name: str) -> None:
    assert jose.username == COMPOSED
    body = {"username": name, "password": "pink sails on a lake"}
    assert APIClient().post("/api/auth/token/", body, format="json").status_code == 200
    call_command("create_token", name, stdout=io.StringIO())
    assert ApiToken.objects.filter(user=jose).count() == 2


@pytest.mark.soak
def test_either_form_counts_as_the_same_login(jose: User) -> None:
    client = APIClient()
    bodies = [{"username": name, "password": "wrong"} for name in (COMPOSED, DECOMPOSED)] * 6
    answers = [client.post("/api/auth/token/", body, format="json") for body in bodies]
    assert [answer.status_code for answer in answers] == [400] * 10 + [429] * 2


@pytest.mark.parametrize("name", [COMPOSED, DECOMPOSED])
def test_either_form_confirms_an_erasure(jose: User, api: Api, name: str) -> None:
    answer = api(jose).delete("/api/memory/", {"confirm": name}, format="json")
    assert answer.status_code == 200, answer.content
    assert api(jose).delete("/api/memory/", {"confirm": "Jose"}, format="json").status_code == 400


def test_a_name_stored_in_another_form_is_found_as_it_is(db: None) -> None:
    stored = User.objects.create(username=DECOMPOSED)
    assert find_user(DECOMPOSED) == stored
    assert find_user(COMPOSED) is None
    composed = User.objects.create(username=COMPOSED)
    assert (find_user(DECOMPOSED), find_user(COMPOSED)) == (stored, composed)
