"""The audit desk's side of accounts: who belongs to the laboratory, and the trail of what they did."""

from typing import Any, ClassVar, NoReturn

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode
from knox.models import AuthToken

from accounts import audit
from accounts.admin_forms import LaboratoryPasswordForm, LaboratoryUserChangeForm, LaboratoryUserCreationForm
from accounts.audit_desk import facts_list, found_by_id, in_words, seal_in_words, target_link
from accounts.audit_filters import ActionFilter, ActorFilter, DaysFilter, TargetFilter
from accounts.capped_paging import ListAhead
from accounts.models import ApiToken, AuditEvent, Laboratory, User
from accounts.roles import Verb
from accounts.services import refuse_own_lockout, save_laboratory, save_user, take_over_account
from accounts.tokens import revoke_tokens

for unused in (EmailAddress, Group, AuthToken, Authenticator, UserSession):
    if admin.site.is_registered(unused):
        admin.site.unregister(unused)


class VerbAdmin(admin.ModelAdmin):
    """An admin page that opens by verb and shows one laboratory's rows, read-only unless a subclass says otherwise."""

    view_verb: ClassVar[Verb | None] = Verb.AUDIT
    change_verb: ClassVar[Verb | None] = None
    operator_may_view: ClassVar[bool] = False
    laboratory_path: ClassVar[str] = "laboratory"
    actions: Any = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        user = signed_in(request)
        if user.is_superuser and self.operator_may_view:
            return rows
        return rows.filter(**{self.laboratory_path: user.laboratory_id}) if user.laboratory_id else rows.none()

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        user = signed_in(request)
        if user.is_superuser:
            return self.operator_may_view
        return any(verb is not None and user.may(verb) for verb in (self.view_verb, self.change_verb))

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.change_verb is not None and signed_in(request).may(self.change_verb)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_change_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> NoReturn:
        """What is not there and what belongs to another laboratory look the same, here as everywhere."""
        raise Http404

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """One row. The audit trail has who looked at it, but for the trail's own rows."""
        response = super().change_view(request, object_id, form_url, extra_context)
        if request.method == "GET" and response.status_code == 200 and self.model is not AuditEvent:
            pk = self.model._meta.pk.to_python(unquote(object_id))
            audit.record(action="desk_row_viewed", actor=signed_in(request), target=self.model(pk=pk))
        return response

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """What happened to a row stands in the audit trail."""
        if not signed_in(request).may(Verb.AUDIT):
            raise PermissionDenied
        return redirect(f"{reverse('admin:accounts_auditevent_changelist')}?{urlencode({'q': unquote(object_id)})}")

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> None:  # type: ignore[override]
        """The services record what they do; Django's own log, which keeps names as text, stays empty."""

    log_change = log_addition  # type: ignore[assignment]
    log_deletions = log_addition  # type: ignore[assignment]


def signed_in(request: HttpRequest) -> User:
    user = request.user
    return user if isinstance(user, User) else User()


@admin.register(User)
class UserAdmin(VerbAdmin, DjangoUserAdmin):
    """The people of the own laboratory; its administrator makes and changes them, nobody deletes them."""

    view_verb = Verb.AUDIT
    change_verb = Verb.ADMINISTER
    add_form = LaboratoryUserCreationForm
    form = LaboratoryUserChangeForm
    change_password_form = LaboratoryPasswordForm
    list_display = ("email", "full_name", "role", "is_active", "last_login")
    list_filter = ("role", "is_active")
    search_fields = ("email", "full_name")
    ordering = ("email",)
    filter_horizontal = ()
    readonly_fields = ("last_login", "created_at")
    fieldsets = (
        (None, {"fields": ("email", "full_name", "password")}),
        ("Laboratory", {"fields": ("role", "is_active")}),
        ("Dates", {"fields": ("last_login", "created_at")}),
    )
    add_fieldsets = ((None, {"fields": ("email", "full_name", "role", "usable_password", "password1", "password2")}),)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Who only reads has no use for the password's line, whose button is for those who change it."""
        found = super().get_fieldsets(request, obj)
        if obj is None or self.has_change_permission(request, obj):
            return found
        shown = [[name for name in options["fields"] if name != "password"] for _, options in found]
        return [(title, {"fields": names}) for (title, _), names in zip(found, shown, strict=True)]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        actor = signed_in(request)

        class FormOfLaboratory(form):  # type: ignore[valid-type,misc]
            def _post_clean(self) -> None:
                # Before the row's constraints are checked: a user always belongs to the administrator's laboratory.
                self.instance.laboratory = actor.laboratory
                super()._post_clean()

            def clean(self) -> Any:
                refuse_own_lockout(actor=actor, user=self.instance, changed_fields=self.changed_data)
                return super().clean()

        if "role" in FormOfLaboratory.base_fields:
            FormOfLaboratory.base_fields["role"].required = True
        return FormOfLaboratory

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        save_user(actor=signed_in(request), user=obj, changed_fields=form.changed_data)

    @transaction.atomic
    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        """Set somebody else's password. The own one has its page, which asks for the old one."""
        actor, user = signed_in(request), self.get_object(request, unquote(id))
        if user == actor:
            return redirect("account_change_password")
        response = super().user_change_password(request, id, form_url)
        # Django's view stores the password and doesn't tell whose hand it was.
        if user is not None and not User.objects.filter(pk=user.pk, password=user.password).exists():
            revoked = take_over_account(actor=actor, user=user)
            self.message_user(request, f"{user} is signed out everywhere; API tokens revoked: {revoked}.")
        return response


@admin.register(ApiToken)
class ApiTokenAdmin(VerbAdmin):
    """Tokens of the laboratory's people: names, scopes and last use; the tokens themselves are hashed."""

    view_verb = Verb.ADMINISTER
    laboratory_path = "user__laboratory"
    list_display = ("name", "user", "scopes", "created", "expiry", "last_used_at")
    fields = ("name", "user", "scopes", "created", "expiry", "last_used_at")
    list_select_related = ("user",)
    actions = ("revoke",)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return signed_in(request).may(Verb.ADMINISTER)

    @admin.action(description="Revoke", permissions=["revoke"])
    def revoke(self, request: HttpRequest, chosen: QuerySet[ApiToken]) -> None:
        revoked = revoke_tokens(actor=signed_in(request), tokens=chosen)
        self.message_user(request, f"API tokens revoked: {revoked}. They open nothing any more.", messages.SUCCESS)


@admin.register(Laboratory)
class LaboratoryAdmin(VerbAdmin):
    """Managed by the platform operator."""

    view_verb = Verb.ADMINISTER
    operator_may_view = True
    laboratory_path = "pk"
    list_display = ("name", "created_at")
    fields = ("name", "created_at")
    readonly_fields = ("created_at",)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return signed_in(request).is_superuser

    def save_model(self, request: HttpRequest, obj: Laboratory, form: Any, change: bool) -> None:
        save_laboratory(actor=signed_in(request), laboratory=obj, changed_fields=form.changed_data)


@admin.register(AuditEvent)
class AuditEventAdmin(VerbAdmin):
    """Who did what to which thing, when and from where. What belongs to no laboratory is the platform operator's."""

    operator_may_view = True
    list_display = ("at", "act", "actor", "target", "ip")
    list_filter = (DaysFilter, ActionFilter, TargetFilter, ActorFilter)
    # The list can be exported with the same filters.
    export_kind = "audit_events"
    list_select_related = ("actor",)
    search_fields = ("target_id", "request_id")
    search_help_text = (
        "The whole id of an event, a target or a request, nothing else: what you type stands in the address."
    )
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    fields = ("at", "act", "actor", "target", "facts_shown", "ip", "request_id", "sealed")
    readonly_fields = ("act", "target", "facts_shown", "sealed")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ListAhead

    def get_queryset(self, request: HttpRequest) -> QuerySet[AuditEvent]:
        rows = super().get_queryset(request)
        return rows.filter(laboratory=None) if signed_in(request).is_superuser else rows

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AuditEvent], search_term: str
    ) -> tuple[QuerySet[AuditEvent], bool]:
        return (found_by_id(queryset, search_term) if search_term else queryset), False

    @admin.display(description="action")
    def act(self, event: AuditEvent) -> str:
        return in_words(event)

    @admin.display(description="target")
    def target(self, event: AuditEvent) -> str:
        return target_link(event)

    @admin.display(description="facts")
    def facts_shown(self, event: AuditEvent) -> str:
        return facts_list(event)

    @admin.display(description="seal")
    def sealed(self, event: AuditEvent) -> str:
        return seal_in_words(event)
