"""Tokens of the API: made for a name and a password, listed, revoked."""

from django.contrib.auth import authenticate
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import exceptions, generics
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from chat.api.conversation_views import ERROR, Pages
from chat.api.serializers import CredentialsSerializer, NewTokenSerializer, TokenSerializer
from chat.auth.api_tokens import create_token
from chat.auth.login_rate import check_login_rate
from chat.models import ApiToken


class TokenView(APIView):
    """A name and a password for a token."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        request=CredentialsSerializer, responses={200: NewTokenSerializer, 400: ERROR, 429: ERROR}
    )
    def post(self, request: Request) -> Response:
        """A new token, shown this once: 200, 400 where name or password are wrong, 429 after too many tries."""
        asked = CredentialsSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        name, password = asked.validated_data["username"], asked.validated_data["password"]
        check_login_rate(request, name)
        user = authenticate(request, username=name, password=password)
        if user is None:
            raise exceptions.ValidationError("The username or the password is wrong.")
        token, key = create_token(user, name=asked.validated_data["name"])
        return Response({"token": key, "id": token.pk})


@extend_schema_view(get=extend_schema(responses={200: TokenSerializer(many=True), 401: ERROR}))
class TokensView(generics.ListAPIView[ApiToken]):
    """The user's own tokens."""

    serializer_class = TokenSerializer
    pagination_class = Pages

    def get_queryset(self) -> QuerySet[ApiToken]:
        """Newest first."""
        return ApiToken.objects.of(self.request.user)


class TokenRevokeView(generics.DestroyAPIView[ApiToken]):
    """Revoke one of the user's tokens."""

    serializer_class = TokenSerializer

    def get_queryset(self) -> QuerySet[ApiToken]:
        """The user's own."""
        return ApiToken.objects.of(self.request.user)
