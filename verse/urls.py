"""URLs: the pages, the admin, the API, its OpenAPI schema and docs."""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, JsonResponse
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

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


# Errors outside DRF have the API's form too. DRF's own 404 has the same bytes.
handler400 = _error(400, "invalid", "The request cannot be understood.")
handler403 = _error(403, "permission_denied", "You do not have permission to perform this action.")
handler404 = _error(404, "not_found", "Not found.")
handler500 = _error(500, "error", "Something went wrong on the server; it is in its log.")
