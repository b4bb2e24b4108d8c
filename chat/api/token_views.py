"""API tokens over HTTP: create one with a password, list, revoke."""

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from chat.api.openapi_schema import ERROR
from chat.api.pagination import Pages, PagesMixin
from chat.api.serializers import CredentialsSerializer, NewTokenSerializer, TokenSerializer
from chat.auth.api_tokens import revoke_token
from chat.auth.login_rate_limit import create_token_for_password
from chat.models import ApiToken
from chat.row_lists import TOKEN_LIST, RowList


class TokenView(APIView):
    """A token for a username and a password."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        request=CredentialsSerializer, responses={200: NewTokenSerializer, 400: ERROR, 429: ERROR}
    )
    def post(self, request: Request) -> Response:
        """A new token, shown only once: 200.

        400: wrong username or password. 429: too many attempts.
        """
        body = CredentialsSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        token, key = create_token_for_password(request, **body.validated_data)
        return Response({"token": key, "id": token.pk})


@extend_schema_view(get=extend_schema(responses={200: TokenSerializer(many=True), 401: ERROR}))
class TokensView(PagesMixin, generics.ListAPIView[ApiToken]):
    """The user's own tokens, newest first."""

    serializer_class = TokenSerializer
    pagination_class = Pages
    queryset = ApiToken.objects.none()  # for the schema

    def get_rows(self) -> RowList[ApiToken]:
        return TOKEN_LIST


class TokenRevokeView(generics.DestroyAPIView[ApiToken]):
    """Revoke one of the user's own tokens."""

    serializer_class = TokenSerializer

    def perform_destroy(self, instance: ApiToken) -> None:
        revoke_token(instance, by=instance.user)

    def get_queryset(self) -> QuerySet[ApiToken]:
        return ApiToken.objects.of(self.request.user)
