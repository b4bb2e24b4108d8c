"""Django's middleware of sessions, which requests with an API token pass by.

They have no session, so its user and messages are not needed either. A request with a token is
never authenticated by its session: chat/auth/api_tokens.py. CsrfViewMiddleware stays Django's own:
the API's views leave CSRF to SessionAuthentication, which checks it.
"""

from typing import Any

from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from chat.auth.api_tokens import key_of

API, OPENAI_API = "/api/", "/v1/"  # of verse/urls.py


class SkippedWithoutSession:
    """Before a middleware class: skips it for API requests with a token, and for all of /v1/."""

    get_response: Any

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        path = request.path_info
        has_token = path.startswith(API) and key_of(request) is not None
        skips = has_token or path.startswith(OPENAI_API)
        call = self.get_response if skips else super().__call__  # type: ignore[misc]
        response: HttpResponseBase = call(request)
        return response


class SessionMiddleware(SkippedWithoutSession, sessions.SessionMiddleware):
    pass


class AuthenticationMiddleware(SkippedWithoutSession, auth.AuthenticationMiddleware):
    pass


class MessageMiddleware(SkippedWithoutSession, messages.MessageMiddleware):
    pass
