"""What happened while one was away: one's own notifications, and what of them is read."""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.roles import Verb
from classifier import services
from classifier.api.filters import ListFilter
from classifier.api.views import acting
from classifier.models import Notification, NotificationKind
from classifier.services.notifications import notifications_of


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "A batch is finished",
            value={
                "id": "8e0c2c39-5a0f-4a53-9d7e-0f5c0f3d3b51",
                "kind": "batch_finished",
                "case": "2f1f8a0e-6f0f-4b3e-8d0e-9a3a7c1f2b10",
                "report": None,
                "at": "2026-11-23T08:15:00Z",
                "read_at": None,
            },
            response_only=True,
        )
    ]
)
class NotificationSerializer(serializers.ModelSerializer[Notification]):
    """One line: what happened to which case. It holds ids only; what they stand for is asked for by them."""

    kind = serializers.ChoiceField(NotificationKind.choices)
    case = serializers.UUIDField(source="case_id")
    report = serializers.UUIDField(source="report_id", allow_null=True)
    read_at = serializers.DateTimeField(allow_null=True, help_text="Null while it is unread.")

    class Meta:
        model = Notification
        fields = ("id", "kind", "case", "report", "at", "read_at")


class NotificationFilter(ListFilter):
    unread = serializers.BooleanField(required=False, help_text="Only those that are unread, or only those read.")


class NotificationList(ListAPIView[Notification]):
    """One's own notifications, the newest first."""

    serializer_class = NotificationSerializer
    queryset = Notification.objects.all()

    def get_queryset(self) -> QuerySet[Notification]:
        wanted = NotificationFilter.of(self.request)
        own = notifications_of(acting(self.request))
        return own.filter(read_at__isnull=wanted["unread"]) if "unread" in wanted else own

    @extend_schema(parameters=[NotificationFilter])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.list(request, *args, **kwargs)


class NotificationRead(APIView):
    """One of them is read."""

    verb = Verb.SEE

    @extend_schema(request=None, responses={200: NotificationSerializer})
    def post(self, request: Request, notification_id: UUID) -> Response:
        """Mark one as read; one that is read already stays as it is."""
        user = acting(request)
        notification = get_object_or_404(notifications_of(user), pk=notification_id)
        services.mark_read(actor=user, notification=notification)
        notification.refresh_from_db()
        return Response(NotificationSerializer(notification).data)
