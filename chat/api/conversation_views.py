"""HTTP in, one call of the service, HTTP out. What belongs to another user is not found, as if it were not there."""

from typing import Any, ClassVar, cast

from django.db import connection
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import exceptions, generics, status
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from chat.answers import runner, turns
from chat.answers.llm import CompletionError
from chat.answers.runner import LiveAnswer
from chat.answers.turns import Turn
from chat.api import events
from chat.api.events import EventNegotiation
from chat.api.serializers import (
    ChatSerializer,
    ContentSerializer,
    ErrorSerializer,
    MessageSerializer,
    PassageSerializer,
    TurnSerializer,
)
from chat.errors import ModelError, NotLast
from chat.memory import recalled
from chat.models import Message, Passage, Role, StandaloneChat
from chat.services import ChatService

MAX_KEY_CHARS = 255
REPLAYED = {"Idempotent-Replayed": "true"}
ERROR = OpenApiResponse(ErrorSerializer)
REFUSED = dict.fromkeys((400, 401, 403, 404, 409), ERROR)
UNANSWERED = REFUSED | dict.fromkeys((413, 422, 429, 502, 503, 504), ERROR)
KEY = OpenApiParameter(
    "Idempotency-Key", str, OpenApiParameter.HEADER, description="1 to 255 characters"
)


class Pages(CursorPagination):
    """Pages by cursor, so that what is added meanwhile moves nothing; ``?page_size=`` up to 100."""

    page_size = 50
    max_page_size = 100
    page_size_query_param = "page_size"
    ordering = ("-created_at", "-id")


class MessagePages(Pages):
    """Messages: oldest first."""

    ordering = ("created_at", "id")


class ConversationMixin:
    """Views of both kinds of conversation, told apart by ``model``; each kind's address names it."""

    model: ClassVar[type[Passage | StandaloneChat]]
    request: Any
    kwargs: dict[str, Any]

    def get_queryset(self) -> QuerySet[Any]:
        """The user's own conversations."""
        return cast("QuerySet[Any]", self.model._default_manager.filter(user=self.request.user))

    def get_conversation(self) -> Any:
        """The conversation of the address. Raises Http404."""
        return get_object_or_404(self.get_queryset(), pk=self.kwargs["conversation_id"])


class ConversationsView(ConversationMixin, generics.ListCreateAPIView[Any]):
    """The user's conversations of one kind, newest first."""

    pagination_class = Pages

    def perform_create(self, serializer: Any) -> None:
        """It belongs to who made it."""
        serializer.save(user=self.request.user)


class ConversationView(ConversationMixin, generics.RetrieveUpdateDestroyAPIView[Any]):
    """One conversation."""

    lookup_url_kwarg = "conversation_id"
    http_method_names = ("get", "patch", "delete", "head", "options")

    def perform_destroy(self, instance: Any) -> None:
        """Its messages go with it, and so their memory."""
        ChatService(instance).delete_conversation()


class MessagesView(ConversationMixin, generics.GenericAPIView[Any]):
    """A conversation's messages, oldest first; a new one is answered."""

    serializer_class = MessageSerializer
    pagination_class = MessagePages
    content_negotiation_class = EventNegotiation

    @extend_schema(responses={200: MessageSerializer(many=True), 401: ERROR, 404: ERROR})
    def get(self, request: Request, conversation_id: int) -> Response:
        """A page of messages. An answer that is being given shows its text so far."""
        conversation = self.get_conversation()
        page = cast("list[Message]", self.paginate_queryset(conversation.messages.all()))
        return self.get_paginated_response(show(conversation, page))

    @extend_schema(
        parameters=[KEY], request=ContentSerializer, responses={201: TurnSerializer} | UNANSWERED
    )
    def post(self, request: Request, conversation_id: int) -> Any:
        """Keep what the user says and answer it: 201; with the same Idempotency-Key the same answer again."""
        service = ChatService(self.get_conversation())
        said = ContentSerializer(data=request.data)
        said.is_valid(raise_exception=True)
        return respond(
            request, *service.reply_to(said.validated_data["content"], key=key_of(request))
        )


class MessageView(ConversationMixin, APIView):
    """One message."""

    @extend_schema(responses={200: MessageSerializer, 401: ERROR, 404: ERROR})
    def get(self, request: Request, conversation_id: int, message_id: int) -> Response:
        """The message; an answer that is being given shows its text so far."""
        conversation = self.get_conversation()
        return Response(show(conversation, [self.get_message(conversation)])[0])

    @extend_schema(request=ContentSerializer, responses={200: MessageSerializer} | REFUSED)
    def patch(self, request: Request, conversation_id: int, message_id: int) -> Response:
        """Change what the user said; an answer to it stays as it is. 403 for what Verse said."""
        conversation = self.get_conversation()
        message = self.get_message(conversation)
        if message.role != Role.USER:
            raise exceptions.PermissionDenied("Only your own messages can be edited.")
        said = ContentSerializer(data=request.data)
        said.is_valid(raise_exception=True)
        return Response(
            MessageSerializer(ChatService(conversation).edit(message, **said.validated_data)).data
        )

    @extend_schema(responses={204: None} | REFUSED)
    def delete(self, request: Request, conversation_id: int, message_id: int) -> Response:
        """Forget the message, whoever said it."""
        conversation = self.get_conversation()
        ChatService(conversation).delete(self.get_message(conversation))
        return Response(status=status.HTTP_204_NO_CONTENT)

    def get_message(self, conversation: Any) -> Message:
        """The message of the address. Raises Http404."""
        return cast(
            "Message", get_object_or_404(conversation.messages.all(), pk=self.kwargs["message_id"])
        )


class AnswerView(MessageView):
    """Views of one message of the assistant's."""

    def get_message(self, conversation: Any) -> Message:
        """The answer of the address. Raises Http404, for a user's own message too."""
        message = super().get_message(conversation)
        if message.role != Role.ASSISTANT:
            raise exceptions.NotFound
        return message


class EventsView(AnswerView):
    """An answer as it is being given."""

    http_method_names = ("get", "options")
    content_negotiation_class = EventNegotiation

    @extend_schema(responses={(200, events.MEDIA_TYPE): str, 401: ERROR, 404: ERROR})
    def get(self, request: Request, conversation_id: int, message_id: int) -> Any:
        """Server-sent events: what is there as one ``delta``, the rest as it comes, ``done`` or ``error``."""
        conversation = self.get_conversation()
        answer = self.get_message(conversation)
        here = runner.find_live_answer(answer)
        connection.close()
        return events.stream(
            events.live_events(here) if here else events.stored_events(conversation, answer)
        )


class StopView(AnswerView):
    """Stop an answer."""

    http_method_names = ("post", "options")

    @extend_schema(request=None, responses={200: MessageSerializer, 401: ERROR, 404: ERROR})
    def post(self, request: Request, conversation_id: int, message_id: int) -> Response:
        """End the answer within a second, whatever process gives it; a finished one stays as it is."""
        conversation = self.get_conversation()
        answer = ChatService(conversation).stop(self.get_message(conversation))
        return Response(MessageSerializer(answer).data)


class RegenerateView(MessageView):
    """Make an answer anew."""

    http_method_names = ("post", "options")
    content_negotiation_class = EventNegotiation

    @extend_schema(parameters=[KEY], request=None, responses={201: TurnSerializer} | UNANSWERED)
    def post(self, request: Request, conversation_id: int, message_id: int) -> Any:
        """Answer the same message again under the answer's id: 201 or events; its old text is gone."""
        conversation = self.get_conversation()
        answer = self.get_message(conversation)
        if answer.role != Role.ASSISTANT:
            raise NotLast
        return respond(request, *ChatService(conversation).regenerate(answer, key=key_of(request)))


def respond(request: Request, turn: Turn, here: LiveAnswer | None) -> Any:
    """The turn as the client asked for it: 201 with the whole, or events as they come."""
    if not events.wants_events(request):
        return answered(turn, here)
    question = MessageSerializer(turn.question).data
    if here is None:
        first = {"user_message": question, "context": context_json(turn.answer)}
        connection.close()
        return events.stream(
            events.with_context_event(first, events.finished_events(turn)), **REPLAYED
        )
    connection.close()
    try:
        here.prepared.result()
    except CompletionError:  # nothing was asked: a plain status, not a stream
        return answered(turn, here)
    first = {"user_message": question, "context": [one.as_json() for one in here.context]}
    return events.stream(events.with_context_event(first, events.live_events(here)))


def show(conversation: Any, messages: list[Message]) -> list[dict[str, Any]]:
    """The messages as JSON; one query more where one of them is being given."""
    streams = any(message.status == "streaming" for message in messages)
    row = turns.running_answer_of(conversation) if streams else None
    so_far = {row.message_id: row.text} if row else {}
    recalled.attach_memories(messages)
    serializer = MessageSerializer(cast("Any", messages), many=True, context={"so_far": so_far})
    return cast("list[dict[str, Any]]", serializer.data)


def key_of(request: Request) -> str | None:
    """The Idempotency-Key. ValidationError: it is empty or too long."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 1 <= len(key) <= MAX_KEY_CHARS:
        raise exceptions.ValidationError(
            {"Idempotency-Key": [f"It has 1 to {MAX_KEY_CHARS} characters."]}
        )
    return key


def answered(turn: Turn, here: LiveAnswer | None) -> Response:
    """201 with the whole answer, waited for without a database connection; ModelError where there is none."""
    if here is None:
        return Response(turn_json(turn), status=status.HTTP_201_CREATED, headers=REPLAYED)
    connection.close()
    answer = here.finished.result()
    if answer is None:
        raise exceptions.NotFound  # the conversation was deleted meanwhile
    turn.answer = answer
    if answer.error:
        detail = here.ending.detail if here.ending else ""
        raise ModelError(answer.error, detail or events.DETAILS[answer.error], **turn_json(turn))
    return Response(turn_json(turn), status=status.HTTP_201_CREATED)


def turn_json(turn: Turn) -> dict[str, Any]:
    """The turn as the API shows it."""
    context = context_json(turn.answer)
    body = {"user_message": turn.question, "assistant_message": turn.answer, "context": context}
    truncated = {"truncated": True} if turn.answer.truncated else {}
    return cast("dict[str, Any]", TurnSerializer(body | truncated).data)


def context_json(answer: Message) -> list[dict[str, Any]]:
    """What the answer was given, as the API shows it."""
    return [one.as_json() for one in recalled.memories_of(answer)]


def of_kind(view: type[Any], model: type[Any]) -> Any:
    """The view for one kind of conversation."""
    serializers = {Passage: PassageSerializer, StandaloneChat: ChatSerializer}
    named = {"model": model, "__doc__": view.__doc__}
    if issubclass(view, ConversationsView | ConversationView):
        named["serializer_class"] = serializers[model]
    made: Any = type(f"{model.__name__}{view.__name__}", (view,), named)
    return made.as_view()
