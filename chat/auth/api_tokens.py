"""API tokens: created once, stored as a digest, checked on each request. docs/decisions/0004"""

import hashlib
import secrets
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.http import HttpRequest
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from psycopg import sql
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request

from chat.model_rows import ModelRow
from chat.models import ApiToken
from retrieval import audit

KEY_BYTES = 32  # 256 bits cannot be guessed, so a plain SHA-256 is enough to store them
LAST_USED_STEP = timedelta(minutes=1)  # at most one write per minute and token


TOKEN, PERSON = ModelRow(ApiToken, alias="token"), ModelRow(User, alias="person")
# The ORM's select_related() does the same in 0.7 ms more for every request. Locks: nothing.
FIND = (
    sql.SQL("""
    SELECT {token}, {person} FROM {tokens} AS token JOIN {users} AS person ON person.id = user_id
    WHERE digest = %(digest)s AND is_active
""")
    .format(
        token=TOKEN.columns,
        person=PERSON.columns,
        tokens=sql.Identifier(ApiToken._meta.db_table),
        users=sql.Identifier(User._meta.db_table),
    )
    .as_string()
)


def digest_of(key: str) -> bytes:
    """SHA-256 of the key, 32 bytes."""
    return hashlib.sha256(key.encode()).digest()


def create_token(user: User, *, name: str = "") -> tuple[ApiToken, str]:
    """A new token and its key. The key is not stored and cannot be shown again."""
    key = secrets.token_urlsafe(KEY_BYTES)
    return ApiToken.objects.create(user=user, name=name, digest=digest_of(key)), key


def revoke_token(token: ApiToken, *, by: User) -> None:
    """Delete the token, at once; a line in the audit log says who did."""
    with transaction.atomic():
        audit.record(by, "token revoked", whose=token.user)
        token.delete()


def key_of(request: HttpRequest | Request, *, scheme: str = "token") -> str | None:
    """The key in ``Authorization: Token <key>``; None without the header or for other schemes."""
    sent, _, key = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    return key.strip(" ") if sent.lower() == scheme else None


def find_token(key: str) -> ApiToken | None:
    """The token of this key, with its user, who is active. One query."""
    with connection.cursor() as cursor:
        cursor.execute(FIND, {"digest": digest_of(key)})
        row = cursor.fetchone()
    if row is None:
        return None
    token = TOKEN.instance(row[: len(TOKEN)])
    token.user = PERSON.instance(row[len(TOKEN) :])
    return token


class TokenAuthentication(BaseAuthentication):
    """``Authorization: Token <key>``. Every wrong key gets the same 401."""

    scheme = "Token"

    def authenticate(self, request: Request) -> tuple[Any, ApiToken] | None:
        """The token's user; None without the header or with another scheme.

        Raises NotAuthenticated. One query, and at most one write per minute and token.
        """
        key = key_of(request, scheme=self.scheme.lower())
        if key is None:
            return None
        token = find_token(key)
        if token is None:
            raise NotAuthenticated
        self._record_use(token)
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return self.scheme

    def _record_use(self, token: ApiToken) -> None:
        due = timezone.now() - LAST_USED_STEP
        if token.last_used_at is None or token.last_used_at < due:
            ApiToken.objects.filter(pk=token.pk).update(last_used_at=timezone.now())


class BearerAuthentication(TokenAuthentication):
    """``Authorization: Bearer <key>``, as clients of OpenAI's API send it."""

    scheme = "Bearer"


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
