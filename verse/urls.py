"""URLs: the pages, the admin, the API, its OpenAPI schema and docs."""

import sys
from typing import Any, cast

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, JsonResponse
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from chat.errors import database_unavailable, is_database_away
from chat.memory_overview import memory_overview
from chat.openai_api.errors import error_object

admin.autodiscover()
urlpatterns = [
    path("", include("chat.pages.urls")),
    # What browsers ask for on pages that name no icon, such as the admin's.
    path("favicon.ico", RedirectView.as_view(url=f"{settings.STATIC_URL}pages/icon.svg")),
    path("admin/memory/", admin.site.admin_view(memory_overview), name="memory-overview"),
    path("admin/", admin.site.urls),
    path("api/", include("chat.urls")),
    path("v1/", include("chat.openai_api.urls")),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
]


def _error(status: int, code: str, detail: str) -> Any:
    def handler(request: HttpRequest, exception: Exception | None = None) -> JsonResponse:
        body: dict[str, object] = {"detail": detail, "code": code}
        if request.path_info.startswith("/v1/"):
            body = error_object(status, code, detail)
        return JsonResponse(body, status=status, json_dumps_params={"separators": (",", ":")})

    return handler


def server_error(request: HttpRequest) -> JsonResponse:
    """500; 503 if the database is away. Django calls it in the ``except`` of the error."""
    error = sys.exception()
    if error is None or not is_database_away(error):
        return cast("JsonResponse", internal_error(request))
    unavailable = database_unavailable(error)
    handler = _error(unavailable.status_code, unavailable.default_code, str(unavailable.detail))
    response: Any = handler(request)
    # It has its line in the log. Without this Django adds one with the traceback.
    response._has_been_logged = True  # noqa: SLF001
    return cast("JsonResponse", response)


# Errors outside DRF have the API's form too. DRF's own 404 has the same bytes.
handler400 = _error(400, "invalid", "The request cannot be understood.")
handler403 = _error(403, "permission_denied", "You do not have permission to perform this action.")
handler404 = _error(404, "not_found", "Not found.")
internal_error = _error(500, "error", "Something went wrong on the server; it is in its log.")
handler500 = server_error
