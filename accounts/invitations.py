"""Invitations: the one way in for people. An administrator sends a link; whoever it was sent to makes the account.

The secret of the link is shown to the administrator once and mailed; the database holds its hash.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from uuid import UUID

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts import audit
from accounts.models import Invitation, Laboratory, User
from accounts.refusals import AccountRefused
from accounts.roles import Role
from accounts.second_factor import own_laboratory, require_administrator

VALID_FOR = timedelta(days=7)
# Service accounts are no people: they are made on the page of the API tokens.
ROLES = tuple(choice for choice in Role.choices if choice[0] != Role.SERVICE)
NOT_VALID = "This invitation does not open anything: it was used, withdrawn, or is too old. Ask for a new one."


@dataclass(frozen=True)
class SentInvitation:
    """An invitation with its secret, which nobody can read again."""

    invitation: Invitation
    secret: str


def open_invitations(laboratory: Laboratory) -> QuerySet[Invitation]:
    """Those that were neither accepted nor withdrawn, whether or not they ran out; the newest first."""
    invitations = Invitation.objects.filter(laboratory=laboratory, accepted_by=None, withdrawn_at=None)
    return invitations.select_related("invited_by")


@transaction.atomic
def invite_person(*, actor: User, email: str, full_name: str, role: str) -> SentInvitation:
    """Invite somebody to the actor's laboratory.

    Raises AccountRefused (not_allowed, unknown_role, address_in_use, invited_already).
    """
    require_administrator(actor)
    if role not in {slug for slug, _ in ROLES}:
        raise AccountRefused("unknown_role", "Choose one of the roles for people.")
    email = email.strip().lower()
    # Two forms at once must not make two invitations of one address.
    laboratory = own_laboratory(actor)
    if User.objects.filter(email__iexact=email).exists():
        sentence = "There is an account with this address already. Its owner can sign in, or reset the password."
        raise AccountRefused("address_in_use", sentence)
    if open_invitations(laboratory).filter(email__iexact=email).exists():
        sentence = "This address has an invitation already. Send that one again, or withdraw it."
        raise AccountRefused("invited_already", sentence)
    secret, hashed, expires_at = fresh_secret()
    invitation = Invitation.objects.create(
        laboratory=laboratory,
        email=email,
        full_name=full_name.strip(),
        role=role,
        secret_sha256=hashed,
        invited_by=actor,
        expires_at=expires_at,
    )
    audit.record(action="invitation_sent", actor=actor, target=invitation, role=role)
    return SentInvitation(invitation, secret)


@transaction.atomic
def send_invitation_again(*, actor: User, invitation: Invitation) -> SentInvitation:
    """Give an open invitation a new secret and another seven days; the link of before opens nothing any more.

    Raises AccountRefused (not_allowed, invitation_closed).
    """
    require_administrator(actor)
    secret, hashed, expires_at = fresh_secret()
    if not still_open(actor, invitation).update(secret_sha256=hashed, expires_at=expires_at, invited_by=actor):
        raise AccountRefused("invitation_closed", "This invitation was accepted or withdrawn.")
    invitation.refresh_from_db()
    audit.record(action="invitation_sent", actor=actor, target=invitation, role=invitation.role, again=True)
    return SentInvitation(invitation, secret)


@transaction.atomic
def withdraw_invitation(*, actor: User, invitation: Invitation) -> None:
    """Make an invitation open nothing. Raises AccountRefused (not_allowed, invitation_closed)."""
    require_administrator(actor)
    if not still_open(actor, invitation).update(withdrawn_at=timezone.now()):
        raise AccountRefused("invitation_closed", "This invitation was accepted or withdrawn.")
    audit.record(action="invitation_withdrawn", actor=actor, target=invitation)


def find_invitation(*, invitation_id: UUID, secret: str) -> Invitation:
    """The open invitation that the link is for. Raises AccountRefused (invitation_not_valid), whatever the reason."""
    invitation = Invitation.objects.filter(pk=invitation_id).select_related("laboratory").first()
    # Compared also where there is none, so that an answer's time tells nothing.
    right = compare_digest(hash_of(secret), invitation.secret_sha256 if invitation else hash_of(""))
    if invitation is None or not right or not is_open(invitation):
        raise AccountRefused("invitation_not_valid", NOT_VALID)
    return invitation


@transaction.atomic
def accept_invitation(*, invitation_id: UUID, secret: str, full_name: str, password: str) -> User:
    """Make the account that the invitation is for, once, however often it is asked for at a time.

    Raises AccountRefused (invitation_not_valid, address_in_use), and ValidationError for a weak password.
    """
    find_invitation(invitation_id=invitation_id, secret=secret)
    invitation = Invitation.objects.select_for_update().get(pk=invitation_id)
    user = User(email=invitation.email, full_name=full_name.strip(), role=invitation.role)
    validate_password(password, user)
    try:
        with transaction.atomic():
            user = User.objects.create_user(
                invitation.email,
                password,
                laboratory=invitation.laboratory,
                role=invitation.role,
                full_name=user.full_name,
            )
    except (ValidationError, IntegrityError) as error:
        sentence = "There is an account with this address already. Sign in, or reset the password."
        raise AccountRefused("address_in_use", sentence) from error
    usable = Invitation.objects.filter(
        pk=invitation_id,
        accepted_by=None,
        withdrawn_at=None,
        expires_at__gt=timezone.now(),
        secret_sha256=hash_of(secret),
    )
    if not usable.update(accepted_by=user):
        # Undoes the account as well.
        raise AccountRefused("invitation_not_valid", NOT_VALID)
    audit.record(action="invitation_accepted", actor=user, target=user, invitation=str(invitation_id), role=user.role)
    return user


def still_open(actor: User, invitation: Invitation) -> QuerySet[Invitation]:
    return Invitation.objects.filter(
        pk=invitation.pk, laboratory=actor.laboratory_id, accepted_by=None, withdrawn_at=None
    )


def is_open(invitation: Invitation) -> bool:
    return (
        invitation.accepted_by_id is None and invitation.withdrawn_at is None and invitation.expires_at > timezone.now()
    )


def fresh_secret() -> tuple[str, str, datetime]:
    """A secret, its hash, and until when it opens."""
    secret = secrets.token_urlsafe(32)
    return secret, hash_of(secret), timezone.now() + VALID_FOR


def hash_of(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
