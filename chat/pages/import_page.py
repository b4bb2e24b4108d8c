"""The page of imports: a form, and how far each import is. Plain HTML, without a script.

It calls the service that the API calls, so it can do nothing that a client cannot.
"""

import re
from typing import Any, cast

from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.generic import TemplateView
from rest_framework.exceptions import APIException, NotFound, ValidationError

from chat.api.import_serializers import UploadSerializer
from chat.api.import_views import kept_open
from chat.import_service import ImportService
from chat.row_lists import IMPORT_LIST
from chat.transfer.reasons import in_words

LATEST = 50  # imports that are shown
ID = re.compile("[0-9]{1,18}")


@method_decorator(never_cache, name="dispatch")
class ImportPage(LoginRequiredMixin, TemplateView):
    """Bring conversations of another product, and remove what an import has added."""

    template_name = "pages/import.html"
    problem = ""

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """One query for the imports, and one that ends those of dead processes."""
        user = cast("User", self.request.user)
        try:
            ImportService(user).end_abandoned()
            imports = IMPORT_LIST.read(user.pk, None, ascending=False, limit=LATEST)
        except APIException as error:  # the database is older
            imports, self.problem = [], str(error.detail)
        rows = [(each, in_words(each.left_out)) for each in imports]
        return super().get_context_data(**kwargs) | {"rows": rows, "problem": self.problem}

    def post(self, request: HttpRequest) -> HttpResponse:
        """Begin an import, or remove one. The page again: with the problem if there is one."""
        try:
            self._act(ImportService(cast("User", request.user)))
        except ValidationError:
            self.problem = "Choose a file, and where it comes from."
        except APIException as error:
            self.problem = str(error.detail)
        return self.get(request) if self.problem else redirect("import-page")

    def _act(self, service: ImportService) -> None:
        removed = self.request.POST.get("remove", "")
        if removed:
            if not ID.fullmatch(removed):
                raise NotFound
            service.remove(int(removed))
            return
        form = UploadSerializer(data={**self.request.POST.dict(), **self.request.FILES.dict()})
        form.is_valid(raise_exception=True)
        service.start(kept_open(form.validated_data["file"]), form.validated_data["format"])
