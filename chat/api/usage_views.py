"""The tokens that a user's turns have used, over HTTP."""

from dataclasses import asdict
from typing import cast

from django.conf import settings
from django.contrib.auth.models import User
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from chat.api.openapi_schema import ERROR
from chat.api.usage_serializers import UsageSerializer
from chat.json_times import json_time
from retrieval import token_usage


class UsageView(APIView):
    """The user's own tokens."""

    @extend_schema(responses={200: UsageSerializer, 401: ERROR})
    def get(self, request: Request) -> Response:
        """Today's and this month's tokens, the daily limit, and when a new day begins (UTC)."""
        report = token_usage.report(cast("User", request.user).pk)
        return Response(
            {
                "day": asdict(report.day),
                "month": asdict(report.month),
                "limit": settings.DAILY_TOKENS_PER_USER,
                "resets_at": json_time(report.resets_at),
            }
        )
