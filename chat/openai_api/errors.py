"""Errors in OpenAI's form: ``{"error": {"message", "type", "code", "param"}}``.

Statuses and codes are those of our own API, chat/errors.py.
"""

from typing import Any

from rest_framework import exceptions
from rest_framework.response import Response

from chat import errors
from chat.errors import ApiError, answer_error

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# OpenAI's libraries send a refused request again by themselves. After these that is of no use: the
# answer that runs would be given, and paid for, a second time; a daily limit holds until midnight.
NO_RETRY_CODES = {errors.InProgress.default_code, errors.DailyLimit.default_code}


class InvalidRequest(ApiError):
    """400: a value of the body cannot be used. ``param`` names it, as in ``messages[0].role``."""

    status_code = 400
    default_code = "invalid"

    def __init__(self, detail: str, *, param: str | None = None) -> None:
        super().__init__(detail, param=param)


class ModelNotFound(ApiError):
    """404: no model is called so."""

    status_code = 404
    default_code = "model_not_found"

    def __init__(self) -> None:
        super().__init__("This model does not exist; GET /v1/models lists them.", param="model")


def error_object(status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """The body of an error, or of the last event of a stream that fails."""
    usual = "server_error" if status >= 500 else "invalid_request_error"
    kind = TYPES.get(status, usual)
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}


def answer_openai_error(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler for /v1."""
    response = answer_error(error, context)
    if response is None:
        return None
    body = response.data
    message, code = str(body["detail"]), str(body["code"])
    response.data = error_object(response.status_code, code, message, body.get("param"))
    if code in NO_RETRY_CODES:
        response["x-should-retry"] = "false"
    return response


def as_error_object(error: exceptions.APIException) -> dict[str, Any]:
    """The object of an error that ends a stream."""
    code = str(getattr(error.detail, "code", error.default_code))
    return error_object(error.status_code, code, str(error.detail))
