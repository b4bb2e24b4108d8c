"""The OpenAPI description's common part: how any address may refuse."""

from typing import Any

# What each operation may answer besides its own: found once by fuzzing, true of all.
REFUSALS = {
    "400": "The request is wrong; the fields that are stand beside `detail` and `code`.",
    "401": "No token, or one that is wrong or revoked.",
    "403": "Not permitted.",
    "404": "Not there, or another user's.",
    "406": "No form of the answer is acceptable.",
    "413": "The body is larger than 1 MB.",
    "415": "The body is no JSON.",
    "503": "The database cannot be reached.",
}
ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
METHODS = {"get", "post", "put", "patch", "delete"}


def document_refusals(result: dict[str, Any], **options: Any) -> dict[str, Any]:
    """drf-spectacular's hook: each operation with its refusals added."""
    for path in result["paths"].values():
        for method in METHODS & set(path):
            for status, description in REFUSALS.items():
                path[method]["responses"].setdefault(
                    status, {"description": description, "content": ERROR}
                )
    return result
