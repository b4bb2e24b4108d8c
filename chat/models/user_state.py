"""What belongs to a user, apart from conversations: settings, limits, tokens."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from chat.models.conversations import OwnedQuerySet


class MemorySwitch(models.Model):
    """Whether the user has memory on; no row means on."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="+"
    )
    enabled = models.BooleanField(default=True, db_default=True)
    changed_at = models.DateTimeField(default=timezone.now, db_default=Now())

    class Meta:
        db_table = "memory_switches"


class RateWindow(models.Model):
    """The times of the latest hits of one rate limit, such as a user's messages.

    Also marks: that a running answer is followed (chat/answers/followers.py), when an import came
    (chat/transfer/importing.py), and when a user erased everything (chat/erasures.py).
    """

    name = models.CharField(max_length=200, primary_key=True)
    hits = ArrayField(models.DateTimeField())

    class Meta:
        db_table = "rate_windows"


class ApiToken(models.Model):
    """A token of the REST API; only its SHA-256 is stored."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    name = models.CharField(max_length=100, blank=True, default="", db_default="")
    digest = models.BinaryField(max_length=32, unique=True)
    created_at = models.DateTimeField(default=timezone.now, db_default=Now())
    last_used_at = models.DateTimeField(null=True, blank=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        db_table = "api_tokens"

    def __str__(self) -> str:
        return self.name or f"Token {self.pk}"
