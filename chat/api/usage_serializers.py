"""The body of ``GET /api/usage/``. docs/api/usage.md"""

from typing import Any

from rest_framework import serializers

from chat.api.serializers import TokensSerializer


class UsedTokensSerializer(TokensSerializer):
    """Tokens of many turns, with those of their embeddings."""

    embedding_tokens = serializers.IntegerField()


class UsageSerializer(serializers.Serializer[Any]):
    """What the user's turns have used today and this month (UTC), and the daily limit."""

    day = UsedTokensSerializer()
    month = UsedTokensSerializer()
    limit = serializers.IntegerField(allow_null=True)
    resets_at = serializers.DateTimeField()
