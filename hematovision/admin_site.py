"""The admin site, with the audit desk's figures on its first page."""

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.template.response import TemplateResponse

from accounts.models import User
from accounts.roles import Verb
from classifier.audit_desk import desk_of_laboratory, desk_of_platform


class AuditDeskSite(AdminSite):
    """Who may audit finds the own laboratory's figures first; a platform operator finds counts over all."""

    site_header = "HematoVision audit desk"
    site_title = "HematoVision"
    index_title = "Audit desk"

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        user = request.user
        desk: dict[str, Any] = {}
        if isinstance(user, User) and user.may(Verb.AUDIT):
            desk = desk_of_laboratory(user, request.GET.dict())
        elif isinstance(user, User) and user.is_superuser:
            desk = desk_of_platform()
        return super().index(request, {"desk": desk, **(extra_context or {})})
