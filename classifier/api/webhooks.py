"""Webhooks over the API: where the laboratory is told of events, and what became of each message."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import ApiToken, User
from accounts.roles import Verb
from classifier import services
from classifier.api.filters import ListFilter
from classifier.api.serializers import KnownFields
from classifier.api.views import acting, read
from classifier.models import MessageState, WebhookEndpoint, WebhookEvent, WebhookMessage
from classifier.safe_address import LONGEST_URL
from classifier.services.webhooks import CHOICES, endpoints_of, in_state, messages_of


class Administers(BasePermission):
    """Even reading is the administrators': an address may hold what only its receiver should know."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if not isinstance(request.user, User) or not request.user.may(Verb.ADMINISTER):
            return False
        return not isinstance(request.auth, ApiToken) or request.auth.may(Verb.ADMINISTER)


def events_field() -> serializers.ListField:
    choices = [(event.value, str(event.label)) for event in CHOICES]
    return serializers.ListField(child=serializers.ChoiceField(choices), allow_empty=False)


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "Signed reports",
            value={"url": "https://lis.example.org/hooks", "events": ["report.released", "report.corrected"]},
        )
    ]
)
class NewEndpointSerializer(KnownFields):
    url = serializers.CharField(max_length=LONGEST_URL, help_text="https, without user and password.")
    events = events_field()


class EndpointSerializer(serializers.ModelSerializer[WebhookEndpoint]):
    """An address of the laboratory, and the events that it is told of."""

    events = events_field()
    previous_secret_until = serializers.SerializerMethodField(
        help_text="Until then the secret before the last rotation signs as well; null when it does not."
    )

    class Meta:
        model = WebhookEndpoint
        fields = ("id", "url", "events", "active", "made_at", "previous_secret_until")
        read_only_fields = fields

    def get_previous_secret_until(self, endpoint: WebhookEndpoint) -> datetime | None:
        until = endpoint.previous_secret_until
        return until if until and until > timezone.now() else None


class NewSecretSerializer(EndpointSerializer):
    """The answer that bears the secret, once."""

    secret = serializers.CharField(read_only=True, help_text="Signs every message. It can't be read again.")

    class Meta(EndpointSerializer.Meta):
        fields = (*EndpointSerializer.Meta.fields, "secret")  # type: ignore[assignment]


class MessageSerializer(serializers.ModelSerializer[WebhookMessage]):
    """One message to one endpoint. `last_code` and `last_outcome` say what came of a try that was not acknowledged."""

    event = serializers.ChoiceField(WebhookEvent.choices)
    state = serializers.ChoiceField(MessageState.choices)
    last_code = serializers.SerializerMethodField()
    last_outcome = serializers.SerializerMethodField()
    replay_of = serializers.UUIDField(source="replay_of_id", allow_null=True)
    content = serializers.DictField(help_text="Ids, codes, versions, times, and the path to ask for more.")

    class Meta:
        model = WebhookMessage
        fields = (
            "id",
            "event",
            "state",
            "at",
            "tries",
            "next_try_at",
            "delivered_at",
            "last_status",
            "last_code",
            "last_outcome",
            "replay_of",
            "content",
        )
        read_only_fields = fields

    def get_last_code(self, message: WebhookMessage) -> str | None:
        return message.last_code or None

    def get_last_outcome(self, message: WebhookMessage) -> str | None:
        return message.outcome or None


class SentNowSerializer(serializers.Serializer[Any]):
    messages = serializers.IntegerField(help_text="How many messages wait for this endpoint, and are tried now.")


class MessageFilter(ListFilter):
    """A state, or the events of one kind."""

    state = serializers.ChoiceField(MessageState.choices, required=False)
    event = serializers.ChoiceField(WebhookEvent.choices, required=False)


class ForAdministrators(APIView):
    """Base of the addresses below: reading and changing need the verb `administer` and the scope `admin`."""

    verb = Verb.ADMINISTER
    permission_classes = (Administers,)

    def endpoint(self, endpoint_id: UUID) -> WebhookEndpoint:
        return get_object_or_404(endpoints_of(acting(self.request)), pk=endpoint_id)


def with_secret(endpoint: WebhookEndpoint, secret: str) -> Mapping[str, Any]:
    return {**EndpointSerializer(endpoint).data, "secret": secret}


class Webhooks(ForAdministrators, ListAPIView[WebhookEndpoint]):
    """The endpoints of the laboratory, the newest first, switched off ones as well; POST adds one."""

    serializer_class = EndpointSerializer
    queryset = WebhookEndpoint.objects.all()

    def get_queryset(self) -> QuerySet[WebhookEndpoint]:
        ListFilter.of(self.request)
        return endpoints_of(acting(self.request))

    @extend_schema(parameters=[ListFilter])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    @extend_schema(request=NewEndpointSerializer, responses={201: NewSecretSerializer})
    def post(self, request: Request) -> Response:
        """Add an endpoint. The answer holds its secret, which is never shown again."""
        endpoint, secret = services.add_endpoint(actor=acting(request), **read(NewEndpointSerializer, request))
        location = request.build_absolute_uri(reverse("api-webhook", args=[endpoint.pk]))
        return Response(with_secret(endpoint, secret), status=201, headers={"Location": location})


class WebhookDetail(ForAdministrators):
    """One endpoint; DELETE switches it off."""

    @extend_schema(responses={200: EndpointSerializer})
    def get(self, request: Request, endpoint_id: UUID) -> Response:
        return Response(EndpointSerializer(self.endpoint(endpoint_id)).data)

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, endpoint_id: UUID) -> Response:
        """Switch the endpoint off: it is told nothing more, and what waits is given up. Its messages stay readable."""
        services.switch_off_endpoint(actor=acting(request), endpoint=self.endpoint(endpoint_id))
        return Response(status=204)


class WebhookSecret(ForAdministrators):
    """A new secret for an endpoint."""

    @extend_schema(request=None, responses={201: NewSecretSerializer})
    def post(self, request: Request, endpoint_id: UUID) -> Response:
        """Make a new secret. For 24 hours every message bears two signatures, by it and by the one before."""
        endpoint = self.endpoint(endpoint_id)
        secret = services.rotate_secret(actor=acting(request), endpoint=endpoint)
        endpoint.refresh_from_db()
        return Response(with_secret(endpoint, secret), status=201)


class WebhookTest(ForAdministrators):
    """A test message."""

    @extend_schema(request=None, responses={202: MessageSerializer})
    def post(self, request: Request, endpoint_id: UUID) -> Response:
        """Send a message that tells of nothing."""
        message = services.send_test_message(actor=acting(request), endpoint=self.endpoint(endpoint_id))
        return Response(MessageSerializer(message).data, status=202)


class WebhookSendNow(ForAdministrators):
    """What waits, at once."""

    @extend_schema(request=None, responses={202: SentNowSerializer})
    def post(self, request: Request, endpoint_id: UUID) -> Response:
        """Try now what waits for the endpoint, because its receiver is back."""
        messages = services.send_now(actor=acting(request), endpoint=self.endpoint(endpoint_id))
        return Response({"messages": messages}, status=202)


class WebhookMessages(ForAdministrators, ListAPIView[WebhookMessage]):
    """The messages of an endpoint, the newest first."""

    serializer_class = MessageSerializer
    queryset = WebhookMessage.objects.all()

    def get_queryset(self) -> QuerySet[WebhookMessage]:
        sent = messages_of(acting(self.request)).filter(endpoint=self.endpoint(self.kwargs["endpoint_id"]))
        wanted = MessageFilter.of(self.request)
        if "event" in wanted:
            sent = sent.filter(event=wanted["event"])
        return in_state(sent, wanted["state"]) if "state" in wanted else sent

    @extend_schema(parameters=[MessageFilter])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)


class WebhookReplay(ForAdministrators):
    """A message once more."""

    @extend_schema(request=None, responses={202: MessageSerializer})
    def post(self, request: Request, endpoint_id: UUID, message_id: UUID) -> Response:
        """Send the content of a message again, as a new message whose `replay_of` names it."""
        messages = messages_of(acting(request)).filter(endpoint=endpoint_id).select_related("endpoint")
        again = services.replay_message(actor=acting(request), message=get_object_or_404(messages, pk=message_id))
        return Response(MessageSerializer(again).data, status=202)
