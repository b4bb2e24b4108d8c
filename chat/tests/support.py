"""Types that the chat's tests share."""

from collections.abc import Callable

from django.contrib.auth.models import User
from rest_framework.test import APIClient

Api = Callable[[User], APIClient]  # the fixture ``api``: a client signed in as the user
