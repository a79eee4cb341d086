"""Where the laboratory wants to be told of events, and what became of each message. Never the secrets."""

from django.contrib import admin

from classifier.admin.desk import DeskAdmin
from classifier.desk_filters import WEBHOOK_MESSAGE_FILTERS
from classifier.models import WebhookEndpoint, WebhookMessage


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(DeskAdmin):
    list_display = ("url", "active", "made_by", "made_at")
    fields = ("url", "events", "active", "previous_secret_until", "made_by", "made_at")
    list_select_related = ("made_by",)


@admin.register(WebhookMessage)
class WebhookMessageAdmin(DeskAdmin):
    laboratory_path = "endpoint__laboratory"
    list_display = ("at", "event", "endpoint", "shown_state", "tries", "last_status", "last_code")
    desk_filters = WEBHOOK_MESSAGE_FILTERS
    list_select_related = ("endpoint",)
    exclude = ("claim_token",)

    @admin.display(description="state")
    def shown_state(self, message: WebhookMessage) -> str:
        return str(message.state.label)
