"""Who may send a large body: a known user, to import a file, or a whole conversation to /v1.

Asked before the body is read. Otherwise anyone could fill the disk for temporary files.
"""

from io import BytesIO

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.handlers.asgi import ASGIRequest
from django.db import Error
from django.http import HttpResponse

from chat.auth.api_tokens import find_token, key_of
from retrieval import steps
from verse.asgi_messages import Scope

IMPORTS = ("/api/memory/import", "/memory/import")  # of chat/urls.py and chat/pages/urls.py
OPENAI_API = "/v1/"  # of verse/urls.py
FORM_BYTES = 10_000  # what multipart adds to the file


async def max_body_bytes(scope: Scope) -> int:
    """The largest body that the request may have; 0: its sender is not known. Two queries."""
    if scope["path"].startswith(OPENAI_API):
        is_allowed = _is_small(scope) or await steps.run(_is_bearer, scope)
        return int(settings.MAX_COMPLETION_BODY_BYTES) if is_allowed else 0
    is_upload = scope["method"] == "POST" and scope["path"].rstrip("/") in IMPORTS
    if not is_upload:
        return int(settings.MAX_BODY_BYTES)
    if not await steps.run(_is_known, scope):
        return 0
    return int(settings.IMPORT_MAX_MB) * 1_000_000 + FORM_BYTES


def _is_small(scope: Scope) -> bool:
    """Whether the request says that its body is as small as any body may be."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    is_chunked = b"transfer-encoding" in headers
    return not is_chunked and length.isdigit() and int(length) <= int(settings.MAX_BODY_BYTES)


def _is_bearer(scope: Scope) -> bool:
    """Whether a token authenticates the request. A failing database: no."""
    key = key_of(ASGIRequest(scope, BytesIO()), scheme="bearer")
    try:
        return key is not None and find_token(key) is not None
    except Error:
        return False


def _is_known(scope: Scope) -> bool:
    """Whether a token or a session authenticates the request. A failing database: no."""
    request = ASGIRequest(scope, BytesIO())
    try:
        key = key_of(request)
        if key is not None:
            return find_token(key) is not None
        SessionMiddleware(lambda _: HttpResponse()).process_request(request)
        return get_user(request).is_authenticated
    except Error:
        return False
