"""The people of a laboratory: who they are, inviting others, and what is asked of all of them at sign-in."""

from typing import Any
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from accounts import invitations
from accounts.invitations import SentInvitation
from accounts.mail import send_mail_about_account
from accounts.middleware import SignedInRequest
from accounts.models import Invitation, User
from accounts.refusals import AccountRefused
from accounts.roles import Role, Verb
from accounts.second_factor import ROLES as ROLES_WITH_SECOND_FACTOR
from accounts.second_factor import owners_of_second_factors, remove_second_factor, set_second_factor_policy

INVITED = """{inviter} invites you to HematoVision, for the laboratory {laboratory}.

This link lets you choose a password and opens your account. It works once, until {until}:

{link}

If you don't know what this is about, do nothing."""


class InvitationForm(forms.Form):
    email = forms.EmailField(label="E-mail address", max_length=254)
    full_name = forms.CharField(label="Name", max_length=120, required=False, help_text="As it will be signed.")
    role = forms.ChoiceField(label="Role", choices=invitations.ROLES)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def people(request: SignedInRequest) -> HttpResponse:
    """Lists the laboratory's people; POST does what `act` says. Its administrator's page: nobody else finds it."""
    if not request.user.may(Verb.ADMINISTER):
        raise Http404
    if request.method != "POST":
        return page(request)
    acts = {
        "invite": invite,
        "send-again": send_again,
        "withdraw": withdraw,
        "require": set_policy,
        "do-not-require": set_policy,
        "remove-second-factor": remove,
    }
    act = acts.get(request.POST.get("act", ""))
    if act is None:
        raise Http404
    try:
        return act(request)
    except AccountRefused as refusal:
        messages.error(request, refusal.message)
        return redirect("people")


def invite(request: SignedInRequest) -> HttpResponse:
    form = InvitationForm(request.POST)
    if form.is_valid():
        try:
            sent = invitations.invite_person(actor=request.user, **form.cleaned_data)
        except AccountRefused as refusal:
            form.add_error("email" if refusal.code != "unknown_role" else "role", refusal.message)
        else:
            return hand_over(request, sent)
    return page(request, form=form)


def send_again(request: SignedInRequest) -> HttpResponse:
    return hand_over(request, invitations.send_invitation_again(actor=request.user, invitation=chosen(request)))


def withdraw(request: SignedInRequest) -> HttpResponse:
    invitations.withdraw_invitation(actor=request.user, invitation=chosen(request))
    messages.success(request, "The invitation is withdrawn. Its link opens nothing any more.")
    return redirect("people")


def set_policy(request: SignedInRequest) -> HttpResponse:
    required = request.POST["act"] == "require"
    set_second_factor_policy(actor=request.user, required=required)
    what = "need a second factor from now on" if required else "may sign in without a second factor"
    messages.success(request, f"Readers, auditors and administrators {what}.")
    return redirect("people")


def remove(request: SignedInRequest) -> HttpResponse:
    person = get_object_or_404(people_of(request.user), pk=uuid_of(request, "person"))
    remove_second_factor(actor=request.user, user=person)
    messages.success(request, f"The second factor of {person} is taken off, and the sessions are ended.")
    return redirect("people")


def hand_over(request: SignedInRequest, sent: SentInvitation) -> HttpResponse:
    """Mail the link, and show it with this answer alone: it is kept nowhere."""
    invitation = sent.invitation
    link = request.build_absolute_uri(reverse("invitation", args=[invitation.pk, sent.secret]))
    text = INVITED.format(
        inviter=request.user,
        laboratory=invitation.laboratory,
        until=f"{invitation.expires_at:%d %B %Y, %H:%M %Z}",
        link=link,
    )
    mailed = send_mail_about_account(to=invitation.email, subject="Your invitation", text=text)
    # Without a server the mail is a file on the server's disk, which reaches nobody.
    return page(
        request,
        sent={"invitation": invitation, "link": link, "mailed": mailed, "no_server": not settings.EMAIL_URL},
    )


def chosen(request: SignedInRequest) -> Invitation:
    own = Invitation.objects.filter(laboratory=request.user.laboratory_id)
    return get_object_or_404(own, pk=uuid_of(request, "invitation"))


def uuid_of(request: SignedInRequest, field: str) -> UUID:
    try:
        return UUID(request.POST.get(field, ""))
    except ValueError as error:
        raise Http404 from error


def people_of(administrator: User) -> Any:
    """The people of the administrator's laboratory; service accounts have a page of their own."""
    return User.objects.filter(laboratory=administrator.laboratory_id).exclude(role=Role.SERVICE)


def page(
    request: SignedInRequest, *, form: InvitationForm | None = None, sent: dict[str, Any] | None = None
) -> HttpResponse:
    laboratory = request.user.laboratory
    assert laboratory is not None  # noqa: S101 - whoever administers belongs to one
    people = list(people_of(request.user).order_by("full_name", "email"))
    with_second_factor = owners_of_second_factors(people)
    context = {
        "people": [(person, person.pk in with_second_factor) for person in people],
        "invitations": invitations.open_invitations(laboratory),
        "form": form or InvitationForm(),
        "sent": sent,
        "laboratory": laboratory,
        "without": sum(
            person.is_active and person.role in ROLES_WITH_SECOND_FACTOR and person.pk not in with_second_factor
            for person in people
        ),
    }
    return render(request, "account/people.html", context, status=400 if form else 200)
