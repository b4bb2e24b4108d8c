"""The forms of the login pages: Django's own, with the limit that ``/api/auth/token/`` has."""

from typing import Any, cast

from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from chat.auth.login_rate_limit import check_login_rate
from chat.errors import Throttled


class LoginForm(AuthenticationForm):
    """Of ``/accounts/login/``."""

    def clean(self) -> dict[str, Any]:
        """Raises ValidationError for a wrong password, and for too many attempts."""
        try:
            check_login_rate(cast("HttpRequest", self.request), self.data.get("username", ""))
        except Throttled as error:
            raise ValidationError(str(error.detail)) from error
        return super().clean()


class AdminLoginForm(LoginForm, AdminAuthenticationForm):
    """Of ``/admin/login/``."""
