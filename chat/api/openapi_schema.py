"""The error responses of the OpenAPI schema: per view, and the hook that adds the common ones."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

from chat.api.serializers import ErrorSerializer

ERROR = OpenApiResponse(ErrorSerializer)
WRITE_ERRORS = dict.fromkeys((400, 401, 403, 404, 409), ERROR)
TURN_ERRORS = WRITE_ERRORS | dict.fromkeys((413, 422, 429, 502, 503, 504), ERROR)
KEY = OpenApiParameter(
    "Idempotency-Key", str, OpenApiParameter.HEADER, description="1 to 255 characters"
)
# Errors that every operation can return besides its own; found by fuzzing.
COMMON_ERRORS = {
    "400": "The request is wrong; wrong fields are named next to `detail` and `code`.",
    "401": "No token, or one that is wrong or revoked.",
    "403": "Not permitted.",
    "404": "Does not exist, or belongs to another user.",
    "406": "No acceptable media type.",
    "413": "The body is larger than 1 MB.",
    "415": "The body is not JSON.",
    "503": "The database cannot be reached.",
}
CONTENT = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
METHODS = {"get", "post", "put", "patch", "delete"}


def document_errors(result: dict[str, Any], **options: Any) -> dict[str, Any]:
    """drf-spectacular's postprocessing hook: add COMMON_ERRORS to each operation."""
    for path in result["paths"].values():
        for method in METHODS & set(path):
            for status, description in COMMON_ERRORS.items():
                path[method]["responses"].setdefault(
                    status, {"description": description, "content": CONTENT}
                )
    return result
