"""API tokens: made once, kept as a digest, checked at each request. docs/decisions/0004-tokens.md"""

import hashlib
import secrets
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request

from chat.models import ApiToken

KEY_BYTES = 32  # 256 bits, beyond guessing: a plain SHA-256 is enough to keep it
LAST_USED_STEP = timedelta(
    minutes=1
)  # one write a minute and token at the most, whatever the traffic


def digest_of(key: str) -> bytes:
    """SHA-256 of the key, 32 bytes."""
    return hashlib.sha256(key.encode()).digest()


def create_token(user: User, *, name: str = "") -> tuple[ApiToken, str]:
    """A new token and its key, which is nowhere else and cannot be shown again."""
    key = secrets.token_urlsafe(KEY_BYTES)
    return ApiToken.objects.create(user=user, name=name, digest=digest_of(key)), key


class TokenAuthentication(BaseAuthentication):
    """``Authorization: Token <key>``; any other value after ``Token`` is a 401, one and the same."""

    def authenticate(self, request: Request) -> tuple[Any, ApiToken] | None:
        """The token's user; None where the header is missing or of another scheme. Errors: NotAuthenticated."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "token":
            return None
        return self._token(key.strip(" "))

    def authenticate_header(self, request: Request) -> str:
        """What a 401 asks for."""
        return "Token"

    def _token(self, key: str) -> tuple[Any, ApiToken]:
        token = ApiToken.objects.select_related("user").filter(digest=digest_of(key)).first()
        if token is None or not token.user.is_active:
            raise NotAuthenticated
        self._note_use(token)
        return token.user, token

    def _note_use(self, token: ApiToken) -> None:
        due = timezone.now() - LAST_USED_STEP
        if token.last_used_at is None or token.last_used_at < due:
            ApiToken.objects.filter(pk=token.pk).update(last_used_at=timezone.now())


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call] # it registers itself
    """How ``Authorization: Token <key>`` is told to generated clients and to the page at /api/docs/."""

    target_class = "chat.auth.api_tokens.TokenAuthentication"
    name = "tokenAuth"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        """As OpenAPI has it for a header."""
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`Token <key>`, the key from `POST /api/auth/token/` or `create_token`",
        }
