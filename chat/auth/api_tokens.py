"""API tokens: created once, stored as a digest, checked on each request. docs/decisions/0004"""

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

KEY_BYTES = 32  # 256 bits cannot be guessed, so a plain SHA-256 is enough to store them
LAST_USED_STEP = timedelta(minutes=1)  # at most one write per minute and token


def digest_of(key: str) -> bytes:
    """SHA-256 of the key, 32 bytes."""
    return hashlib.sha256(key.encode()).digest()


def create_token(user: User, *, name: str = "") -> tuple[ApiToken, str]:
    """A new token and its key. The key is not stored and cannot be shown again."""
    key = secrets.token_urlsafe(KEY_BYTES)
    return ApiToken.objects.create(user=user, name=name, digest=digest_of(key)), key


class TokenAuthentication(BaseAuthentication):
    """``Authorization: Token <key>``. Every wrong key gets the same 401."""

    def authenticate(self, request: Request) -> tuple[Any, ApiToken] | None:
        """The token's user; None without the header or with another scheme.

        Raises NotAuthenticated. One query, and at most one write per minute and token.
        """
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "token":
            return None
        digest = digest_of(key.strip(" "))
        token = ApiToken.objects.select_related("user").filter(digest=digest).first()
        if token is None or not token.user.is_active:
            raise NotAuthenticated
        self._record_use(token)
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return "Token"

    def _record_use(self, token: ApiToken) -> None:
        due = timezone.now() - LAST_USED_STEP
        if token.last_used_at is None or token.last_used_at < due:
            ApiToken.objects.filter(pk=token.pk).update(last_used_at=timezone.now())


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Documents ``Authorization: Token <key>`` in the OpenAPI schema."""

    target_class = "chat.auth.api_tokens.TokenAuthentication"
    name = "tokenAuth"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`Token <key>`, the key from `POST /api/auth/token/` or `create_token`",
        }
