"""What the API answers when it cannot do what was asked: a status and ``{"detail", "code"}``; docs/api.md."""

import logging
from typing import Any

from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.db import DatabaseError, InterfaceError, OperationalError
from django.http import Http404
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import exception_handler

from retrieval.db_errors import error_name, sqlstate

logger = logging.getLogger(__name__)


class ApiError(exceptions.APIException):
    """An answer with a status and a code of our own; ``extra`` is added to the body."""

    def __init__(
        self, detail: str | None = None, *, retry_after_s: int | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.extra = extra
        self.wait = retry_after_s  # DRF's handler makes Retry-After of it


class InProgress(ApiError):
    """409: this conversation's answer is still being given."""

    status_code = status.HTTP_409_CONFLICT
    default_detail = "This conversation's answer is still being given; wait for it, or stop it."
    default_code = "in_progress"


class KeyReused(ApiError):
    """422: the Idempotency-Key came with something else before."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_detail = (
        "This Idempotency-Key was sent with another content; use a new one for each message."
    )
    default_code = "key_reused"


class NotLast(ApiError):
    """400: only the conversation's last answer is made anew."""

    status_code = status.HTTP_400_BAD_REQUEST
    default_detail = "Only the conversation's last answer can be made anew."
    default_code = "not_last"


class Throttled(ApiError):
    """429: too many messages in the time that THROTTLE_MESSAGES names."""

    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    default_detail = "Too many messages; try again later."
    default_code = "throttled"


class TooManyStreams(ApiError):
    """429: STREAMS_PER_USER answers of this user are being given."""

    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    default_detail = (
        "Too many answers are being given to you at once; wait for one to end, or stop it."
    )
    default_code = "too_many_streams"


class ModelError(ApiError):
    """502, 503 or 504: the language model gave no whole answer; the message is kept."""

    def __init__(self, code: str, detail: str, **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.detail = exceptions.ErrorDetail(detail, code)
        self.status_code = MODEL_STATUS[code]


MODEL_STATUS = {"llm_error": 502, "interrupted": 502, "llm_not_configured": 503, "llm_timeout": 504}


class DatabaseUnavailable(ApiError):
    """503: the database cannot be reached, or cannot be written to."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = "The database cannot be reached at the moment; try again."
    default_code = "database_unavailable"


def answer_error(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: every refusal as ``{"detail", "code"}``, beside the fields that were wrong."""
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
        return (
            exceptions.NotAuthenticated()
        )  # one and the same for no token, a wrong and a revoked one
    if isinstance(error, RecursionError):
        return (
            exceptions.ParseError()
        )  # JSON of a hundred thousand brackets: nothing else here goes so deep
    if is_database_away(error):
        logger.error("Database unavailable: %s", error_name(error))
        return DatabaseUnavailable()
    return error


def is_database_away(error: BaseException) -> bool:
    """Whether the database is out of reach, full or read-only: nothing that the request could mend."""
    read_only = isinstance(error, DatabaseError) and sqlstate(error) == "25006"
    return read_only or isinstance(error, (OperationalError, InterfaceError))


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
