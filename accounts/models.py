"""Laboratories, their people, their tokens, and the trail of what was done."""

import uuid
from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models.functions import Lower
from knox.models import AbstractAuthToken

from accounts.facts import Fact
from accounts.roles import ROLE_VERBS, SCOPE_VERBS, Role, Verb


class Laboratory(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=120)
    created_at = models.DateTimeField(auto_now_add=True)
    # Readers, auditors and administrators must sign in with a second factor.
    requires_second_factor = models.BooleanField(default=False, db_default=False)

    class Meta:
        verbose_name_plural = "laboratories"
        ordering: ClassVar = ["name"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                Lower("name"),
                name="laboratory_name_unique",
                violation_error_message="There is a laboratory of that name.",
            )
        ]

    def __str__(self) -> str:
        return self.name


class UserManager(BaseUserManager["User"]):
    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(email__iexact=username)

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        user = self.model(email=email.strip().lower(), **fields)
        user.set_password(password)
        user.full_clean(exclude=["password"])
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """Make a platform operator: manages laboratories and model versions, belongs to none, sees no patient data."""
        return self.create_user(email, password, is_superuser=True, role="", **fields)


class User(AbstractBaseUser):  # type: ignore[django-manager-missing]
    """Somebody who signs in by e-mail and acts for one laboratory, or a platform operator, who acts for none."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    email = models.EmailField(unique=True)
    full_name = models.CharField("name", max_length=120, blank=True)
    laboratory = models.ForeignKey(Laboratory, models.PROTECT, null=True, blank=True, related_name="users")
    role = models.CharField(max_length=20, choices=Role.choices, blank=True)
    is_active = models.BooleanField(default=True)
    is_superuser = models.BooleanField("platform operator", default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        ordering: ClassVar = ["email"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                Lower("email"), name="user_email_unique", violation_error_message="This e-mail address is in use."
            ),
            models.CheckConstraint(
                condition=models.Q(is_superuser=True, laboratory=None, role="")
                | (models.Q(is_superuser=False, laboratory__isnull=False) & models.Q(role__in=Role.values)),
                name="user_has_laboratory_and_role_or_is_operator",
                violation_error_message="A user has a laboratory and a role; a platform operator has neither.",
            ),
        ]

    def __str__(self) -> str:
        return self.full_name or self.email

    def set_password(self, raw_password: str | None) -> None:
        """A service account has tokens only: whatever password is meant for it, it gets none."""
        super().set_password(None if self.role == Role.SERVICE else raw_password)

    def may(self, verb: Verb) -> bool:
        """Whether the role allows the verb. Which objects it reaches is `visible_to`'s answer, not this one's."""
        return self.is_active and verb in ROLE_VERBS.get(self.role, frozenset())

    @property
    def initials(self) -> str:
        words = (self.full_name or self.email.split("@")[0]).replace(".", " ").split()
        return "".join(word[0] for word in words[:2]).upper()

    @property
    def is_staff(self) -> bool:
        """Whether the admin site opens at all; what it shows is decided there, verb by verb."""
        return self.is_superuser or self.may(Verb.AUDIT) or self.may(Verb.ADMINISTER)

    def has_perm(self, perm: str, obj: object = None) -> bool:
        return self.is_active and self.is_superuser

    def has_module_perms(self, app_label: str) -> bool:
        return self.is_active and self.is_superuser

    def get_full_name(self) -> str:
        return str(self)


class ApiToken(AbstractAuthToken):
    """A named key for the API. Only its hash is stored; its scopes can narrow the owner's role, never widen it."""

    name = models.CharField(max_length=80, default="token")
    scopes = models.JSONField(default=list)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["-created"]

    def __str__(self) -> str:
        return f"{self.name} of {self.user}"

    def may(self, verb: Verb) -> bool:
        return any(verb in SCOPE_VERBS[scope] for scope in self.scopes)


class AuditEvent(Fact):
    """One act: who did what to which thing, when and from where. Holds ids and field names, never patient text."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    at = models.DateTimeField(auto_now_add=True, db_index=True)
    actor = models.ForeignKey(User, models.PROTECT, null=True, related_name="audit_events")
    # Other indexes begin with it.
    laboratory = models.ForeignKey(Laboratory, models.PROTECT, null=True, related_name="audit_events", db_index=False)
    action = models.CharField(max_length=60)
    target_type = models.CharField(max_length=60, blank=True)
    target_id = models.CharField(max_length=64, blank=True)
    facts = models.JSONField(default=dict)
    ip = models.GenericIPAddressField(null=True)
    request_id = models.CharField(max_length=64, blank=True)

    class Meta:
        ordering: ClassVar = ["-at", "-id"]
        indexes: ClassVar = [
            models.Index(fields=["laboratory", "-at"], name="audit_laboratory_newest"),
            models.Index(fields=["target_type", "target_id"], name="audit_target"),
            models.Index(fields=["laboratory", "action", "-at"], name="audit_laboratory_action"),
            models.Index(fields=["request_id"], condition=~models.Q(request_id=""), name="audit_request"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.target_type} {self.target_id}".strip()


class AuditEventToSeal(models.Model):
    """An event that no seal lists yet. A trigger of the database puts each new one here, the sealer takes it out."""

    event = models.OneToOneField(AuditEvent, models.PROTECT, primary_key=True, related_name="+", db_constraint=False)

    def __str__(self) -> str:
        return str(self.event_id)


class AuditSeal(Fact):
    """A block of events, made tamper-evident: `entries` lists `[event id, SHA-256 of the event]`.

    `mac` is an HMAC-SHA-256 over number, time, entries and the `mac` of the seal before, so the seals are a chain.
    `key_id` names the key, which stands in the environment and never in the database.
    """

    number = models.PositiveBigIntegerField(primary_key=True)
    sealed_at = models.DateTimeField(db_index=True)
    entries = models.JSONField()
    previous_mac = models.CharField(max_length=64, blank=True)
    mac = models.CharField(max_length=64)
    key_id = models.CharField(max_length=16)

    class Meta:
        ordering: ClassVar = ["-number"]

    def __str__(self) -> str:
        return f"seal {self.number}"


class Invitation(models.Model):
    """A link by which somebody makes an account of a laboratory. Only the hash of its secret is stored."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    laboratory = models.ForeignKey(Laboratory, models.PROTECT, related_name="invitations")
    email = models.EmailField()
    full_name = models.CharField("name", max_length=120, blank=True)
    role = models.CharField(max_length=20, choices=Role.choices)
    secret_sha256 = models.CharField(max_length=64, unique=True)
    invited_by = models.ForeignKey(User, models.PROTECT, related_name="invitations")
    invited_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    accepted_by = models.OneToOneField(User, models.PROTECT, null=True, blank=True, related_name="invitation")
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["-invited_at", "-id"]

    def __str__(self) -> str:
        return str(self.id)
