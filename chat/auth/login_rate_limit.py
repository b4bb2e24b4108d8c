"""The limit on login attempts, per account and per address, and the login for an API token."""

import hashlib

from django.contrib.auth import authenticate
from django.db import transaction
from django.http import HttpRequest
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from chat.auth.api_tokens import create_token
from chat.auth.usernames import normalize
from chat.errors import Throttled
from chat.models import ApiToken
from chat.rate_limit import count_hit
from retrieval import audit

# Enough for typing errors; at ten a minute, guessing even a weak password takes years.
ATTEMPTS_PER_ACCOUNT = 10
ATTEMPTS_PER_ADDRESS = 60  # a school or an office shares one address
WINDOW_S = 60


def create_token_for_password(
    request: Request, *, username: str, password: str, name: str
) -> tuple[ApiToken, str]:
    """A new token of the user. Raises Throttled; ValidationError if the password is wrong."""
    check_login_rate(request, username)
    user = authenticate(request, username=normalize(username), password=password)
    if user is None:
        raise ValidationError("The username or the password is wrong.")
    with transaction.atomic():
        audit.record(user, "token made", whose=user)
        return create_token(user, name=name)


def check_login_rate(request: HttpRequest | Request, username: str) -> None:
    """Count one attempt. Raises Throttled: then even the right password is refused."""
    account = hashlib.sha256(normalize(username).lower().encode()).hexdigest()
    for name, limit in (
        (f"login account {account}", ATTEMPTS_PER_ACCOUNT),
        (f"login address {request.META.get('REMOTE_ADDR', '')}", ATTEMPTS_PER_ADDRESS),
    ):
        wait_s = count_hit(name, limit=limit, seconds=WINDOW_S)
        if wait_s is not None:
            raise Throttled("Too many attempts; wait a minute.", retry_after_s=wait_s)
