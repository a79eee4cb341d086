"""The second factor: who needs one, who has one, and what an administrator does about it."""

from collections.abc import Iterable
from uuid import UUID

from allauth.account.authentication import AUTHENTICATION_METHODS_SESSION_KEY, get_authentication_records
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest

from accounts import audit
from accounts.mail import send_mail_about_account
from accounts.models import Laboratory, User
from accounts.refusals import AccountRefused
from accounts.roles import Role, Verb
from accounts.sessions import end_other_sessions, end_sessions

# Who releases, who reads the trail, and who gives accounts away.
ROLES = frozenset({Role.READER, Role.AUDITOR, Role.ADMIN})
# In the session in which the factor was set up: whose it is.
SET_UP_BY = "second_factor_set_up_by"
REMOVED = """An administrator has taken the second factor off your account, and ended your sessions.

Sign in with your password and set a new one up. If you did not ask for this, tell your laboratory's administrator."""


def is_required(user: User) -> bool:
    """Whether the policy of the user's laboratory, or of the instance for its operators, asks for a second factor."""
    if user.is_superuser:
        return bool(settings.OPERATOR_SECOND_FACTOR)
    return user.role in ROLES and user.laboratory is not None and user.laboratory.requires_second_factor


def is_set_up(user: User) -> bool:
    return bool(Authenticator.objects.filter(user=user, type=Authenticator.Type.TOTP).exists())


def owners_of_second_factors(users: Iterable[User]) -> set[UUID]:
    """The ids of those of the users that have one, in one query."""
    factors = Authenticator.objects.filter(user__in=users, type=Authenticator.Type.TOTP)
    return set(factors.values_list("user_id", flat=True))


def was_shown(request: HttpRequest) -> bool:
    """Whether this session was opened, or continued, with a second factor: of ours, or of a provider that asks for one.

    allauth notes the ways by which a session was opened, bound to its user.
    """
    ways = {record["method"] for record in get_authentication_records(request, request.user)}
    if "mfa" in ways or request.session.get(SET_UP_BY) == str(request.user.pk):
        return True
    return bool(settings.OIDC_SATISFIES_SECOND_FACTOR and "oidc" in ways)


def was_set_up(*, request: HttpRequest, user: User) -> None:
    """A code was right when the factor was set up: this session goes on with it, the others end."""
    request.session[SET_UP_BY] = str(user.pk)
    end_other_sessions(actor=user, session_key=request.session.session_key)


def was_turned_off(*, request: HttpRequest, user: User) -> None:
    """What the factor had opened counts no longer: this session goes on without it, the others end."""
    request.session.pop(SET_UP_BY, None)
    kept = [record for record in get_authentication_records(request, user) if record["method"] != "mfa"]
    request.session[AUTHENTICATION_METHODS_SESSION_KEY] = kept
    end_other_sessions(actor=user, session_key=request.session.session_key)


@transaction.atomic
def set_second_factor_policy(*, actor: User, required: bool) -> None:
    """Ask readers, auditors and administrators of the actor's laboratory for a second factor, or stop asking.

    Raises AccountRefused (not_allowed).
    """
    laboratory = own_laboratory(actor)
    if laboratory.requires_second_factor == required:
        return
    laboratory.requires_second_factor = required
    laboratory.save(update_fields=["requires_second_factor"])
    audit.record(
        action="laboratory_changed",
        actor=actor,
        target=laboratory,
        laboratory=laboratory,
        fields=["requires_second_factor"],
    )


@transaction.atomic
def remove_second_factor(*, actor: User | None, user: User) -> None:
    """Take a lost second factor off somebody, with its recovery codes; ends the sessions and mails the person.

    `actor` is None on the command line. Raises AccountRefused (not_allowed, own_second_factor, no_second_factor).
    """
    if actor is not None:
        require_administrator(actor)
        if user.laboratory_id != actor.laboratory_id:
            raise AccountRefused("not_allowed", "This person belongs to another laboratory.")
        if user.pk == actor.pk:
            sentence = "You can't take off your own second factor here. Ask another administrator."
            raise AccountRefused("own_second_factor", sentence)
    user = User.objects.select_for_update(of=("self",)).select_related("laboratory").get(pk=user.pk)
    if not Authenticator.objects.filter(user=user).delete()[0]:
        raise AccountRefused("no_second_factor", "This person has no second factor.")
    ended = end_sessions(user=user)
    audit.record(
        action="second_factor_removed", actor=actor, target=user, laboratory=user.laboratory, sessions_ended=ended
    )
    transaction.on_commit(lambda: send_mail_about_account(to=user.email, subject="Second factor removed", text=REMOVED))


def require_administrator(actor: User) -> None:
    if not actor.may(Verb.ADMINISTER):
        raise AccountRefused("not_allowed", "Only an administrator of the laboratory does this.")


def own_laboratory(administrator: User) -> Laboratory:
    """The administrator's laboratory, locked until the transaction ends. Raises AccountRefused (not_allowed)."""
    require_administrator(administrator)
    return Laboratory.objects.select_for_update(of=("self",)).get(users=administrator)
