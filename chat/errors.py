"""The API's errors: a status and ``{"detail", "code"}``. docs/api.md"""

import logging
from typing import Any

from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.db import DatabaseError, InterfaceError, InternalError, OperationalError
from django.http import Http404
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import exception_handler

from retrieval.db_errors import error_name, sqlstate

logger = logging.getLogger(__name__)
READ_ONLY = "25006"  # read_only_sql_transaction in PostgreSQL


class ApiError(exceptions.APIException):
    """An error response; ``extra`` is added to the body."""

    def __init__(
        self, detail: str | None = None, *, retry_after_s: int | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.extra = extra
        self.wait = retry_after_s  # DRF's handler sends it as Retry-After


class InProgress(ApiError):
    """409: an answer of this conversation is still running."""

    status_code = status.HTTP_409_CONFLICT
    default_detail = "This conversation's answer is still running; wait for it or stop it."
    default_code = "in_progress"


class KeyReused(ApiError):
    """422: the Idempotency-Key was used for another request."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_detail = "This Idempotency-Key was used with other content; use a new one per message."
    default_code = "key_reused"


class NotLast(ApiError):
    """400: only the last answer can be regenerated."""

    status_code = status.HTTP_400_BAD_REQUEST
    default_detail = "Only the last answer can be regenerated."
    default_code = "not_last"


class Throttled(ApiError):
    """429: more messages than THROTTLE_MESSAGES allows, or too many login attempts."""

    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    default_detail = "Too many messages; try again later."
    default_code = "throttled"


class DailyLimit(ApiError):
    """429: the tokens of the user, or of all, for this day (UTC) are used up."""

    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    default_detail = "Today's tokens are used up; new answers are possible after midnight UTC."
    default_code = "daily_limit"


class TooManyStreams(ApiError):
    """429: STREAMS_PER_USER answers of this user are running."""

    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    default_detail = "Too many of your answers are running; wait for one to end or stop it."
    default_code = "too_many_streams"


class ModelError(ApiError):
    """502, 503 or 504: the model gave no complete answer; the user's message is saved."""

    def __init__(self, code: str, detail: str, **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.detail = exceptions.ErrorDetail(detail, code)
        self.status_code = MODEL_STATUS[code]


DATABASE_AWAY = "The database cannot be reached at the moment; try again."
# Of what ended an answer; the database, if it was back when the answer was saved.
MODEL_STATUS = {
    "llm_error": 502,
    "interrupted": 502,
    "llm_not_configured": 503,
    "database_unavailable": 503,
    "llm_timeout": 504,
}
MODEL_DETAILS = {
    "database_unavailable": DATABASE_AWAY,
    "llm_error": "The language model refused, or broke off its answer.",
    "llm_timeout": "The language model was silent for too long.",
    "llm_not_configured": "No language model is configured.",
    "interrupted": "The server stopped before the answer was complete; "
    "the same Idempotency-Key tries again.",
}


class MessageDeleted(ApiError):
    """The message was deleted while its answer was streamed. Sent only as an event."""

    default_detail = "The message was deleted."


class DatabaseUnavailable(ApiError):
    """503: the database cannot be reached or written to."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = DATABASE_AWAY
    default_code = "database_unavailable"


def answer_error(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: every error as ``{"detail", "code"}``, plus the wrong fields."""
    known = _known(error)
    response = exception_handler(known, context)
    if response is not None and isinstance(known, exceptions.APIException):
        response.data = _body(known)
    return response


def _known(error: Exception) -> Exception:
    if isinstance(error, (Http404, ObjectDoesNotExist)):
        return exceptions.NotFound()
    if isinstance(error, PermissionDenied):
        return exceptions.PermissionDenied()
    if isinstance(error, exceptions.AuthenticationFailed):
        return exceptions.NotAuthenticated()  # no, wrong and revoked tokens look the same
    if isinstance(error, RecursionError):  # only JSON nested 100,000 levels deep goes so far
        return exceptions.ParseError()
    return database_unavailable(error) if is_database_away(error) else error


def database_unavailable(error: BaseException) -> DatabaseUnavailable:
    """What is answered to the request; the line in the log is counted."""
    logger.error("Database unavailable: %s", error_name(error))
    return DatabaseUnavailable()


def is_database_away(error: BaseException) -> bool:
    """Whether the database is unreachable, full or read-only: not the request's fault.

    psycopg raises an InternalError without SQLSTATE if a connection breaks in the middle of COMMIT.
    """
    read_only = isinstance(error, DatabaseError) and sqlstate(error) == READ_ONLY
    is_broken = isinstance(error, InternalError) and sqlstate(error) is None
    return read_only or is_broken or isinstance(error, (OperationalError, InterfaceError))


def _body(error: exceptions.APIException) -> dict[str, Any]:
    if isinstance(error, exceptions.ValidationError):
        return _invalid(error.detail)
    detail = error.detail
    code = getattr(detail, "code", error.default_code)
    return {"detail": detail, "code": code} | getattr(error, "extra", {})


def _invalid(detail: Any) -> dict[str, Any]:
    fields = detail if isinstance(detail, dict) else {"non_field_errors": detail}
    name, errors = next(iter(fields.items()))
    first = errors[0] if isinstance(errors, list) else errors
    summary = f"{first}" if name in {"non_field_errors", "detail"} else f"{name}: {first}"
    return {"detail": summary, "code": "invalid"} | fields
