"""The pages themselves hold no data: their scripts read and write by the API."""

from typing import Any

from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.generic import TemplateView

from chat.auth.login_forms import LoginForm
from chat.samples.loading import has_samples, questions


@method_decorator(never_cache, name="dispatch")
class ChatPage(LoginRequiredMixin, TemplateView):
    """The list of conversations, and the one that is open."""

    template_name = "pages/chat.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """With questions to try, for a user who has the sample conversations. One query."""
        context = super().get_context_data(**kwargs)
        samples = questions() if has_samples(self.request.user) else []
        return context | {"questions": [sample.question for sample in samples]}


@method_decorator(never_cache, name="dispatch")
class MemoryPage(LoginRequiredMixin, TemplateView):
    """What Verse can recall about the user."""

    template_name = "pages/memory.html"


class LoginPage(LoginView):
    """Signs in with a session; who is signed in already goes on to the chat."""

    template_name = "pages/login.html"
    authentication_form = LoginForm
    redirect_authenticated_user = True


class SignOut(LogoutView):
    """Ends the session, of the admin too, and has the browser delete the drafts of the pages."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Browsers heed the header with https, and on this machine."""
        response = super().post(request, *args, **kwargs)
        response["Clear-Site-Data"] = '"storage"'
        return response
