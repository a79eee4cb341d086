"""Signing a report, and opening a signed one again to amend or correct it."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from accounts import audit
from accounts.models import AuditEvent, User
from accounts.roles import Role, Verb
from classifier.case_transitions import SIGNED, move_case
from classifier.errors import Conflict, HematoVisionError, InvalidInput, NotAllowed, TooManyTries
from classifier.laboratory_settings import settings_of
from classifier.models import (
    Amendment,
    AmendmentKind,
    Case,
    CaseStatus,
    CellImage,
    NotificationKind,
    Report,
    ReportKind,
    Review,
)
from classifier.reports.forms import COMMENT_LENGTH
from classifier.reports.payload import Signature, build_payload, canonical_json, draft_payload, payload_sha256
from classifier.reports.versions import open_amendment
from classifier.services.notifications import notify
from classifier.services.permission import require, required_reason
from classifier.tallies import differential_of, tally_of
from classifier.webhooks import announce_report

PASSWORD_TRIES = 5
PASSWORD_WINDOW = timedelta(minutes=5)
WRONG_PASSWORD = "release_password_wrong"  # noqa: S105 (the name of an audit event)
SIGNED_ACTIONS = {
    ReportKind.RELEASED: "report_released",
    ReportKind.AMENDED: "report_amended",
    ReportKind.CORRECTED: "report_corrected",
}
NOTIFICATIONS = {
    ReportKind.AMENDED: NotificationKind.REPORT_AMENDED,
    ReportKind.CORRECTED: NotificationKind.REPORT_CORRECTED,
}


def release_report(
    *, actor: User, case: Case, password: str, reason: str = "", comment: str = "", seen: str = ""
) -> Report:
    """Sign the case as it stands: its first report, or the next version where one is being amended or corrected.

    `reason` is needed below the target count; a later version always bears the reason of its amendment as well.
    `seen` is the `draft_sha256` of what the signer has looked at: where anything has changed since, nothing is signed.
    Raises NotAllowed (not_allowed, uploader_may_not_release, wrong_password); TooManyTries (too_many_tries);
    InvalidInput (reason_too_long, comment_too_long); Conflict (case_void, already_released, case_changed, and
    release_blocked with the reasons in `errors`).
    """
    require_signer(actor, case)
    reason, comment = reason.strip(), comment.strip()
    if reason:
        reason = required_reason(reason)
    if len(comment) > COMMENT_LENGTH:
        raise InvalidInput("comment_too_long", f"A comment has at most {COMMENT_LENGTH:,} characters.")
    check_password(actor=actor, case=case, password=password)
    with transaction.atomic():
        # The strong lock: uploads in flight hold a key-share lock on the case, and a release has to wait for them.
        locked = Case.objects.select_for_update(of=("self",)).select_related("laboratory").get(pk=case.pk)
        require_unsigned(locked)
        require_other_hands(actor, locked)
        require_nothing_in_the_way(locked, reason)
        if seen and draft_sha256(draft_payload(locked)) != seen:
            message = "Something in this case has changed since you opened this page. Look at it again before you sign."
            raise Conflict("case_changed", message)
        report = sign(actor=actor, case=locked, reason=reason, comment=comment)
    case.refresh_from_db(fields=["status"])
    return report


def draft_sha256(draft: Mapping[str, Any]) -> str:
    """What tells two drafts of a case apart: the hash of all that the signer sees."""
    return payload_sha256(canonical_json(draft))


def may_sign(user: User) -> bool:
    """Whether the user's role signs reports at all; a service account never does."""
    return user.may(Verb.RELEASE) and user.role != Role.SERVICE


def require_signer(actor: User, case: Case) -> None:
    """Raises NotAllowed unless the actor is a person whose role may release reports of the case's laboratory."""
    if actor.role == Role.SERVICE:
        raise NotAllowed("not_allowed", "A service account never signs a report: a reader has to.")
    require(actor, Verb.RELEASE, case)


def signing_refusal(*, actor: User, case: Case) -> str:
    """Why this person can't sign this case now, whatever is typed: a sentence; empty where nothing is in the way.

    What is still to be reviewed is not said here: `blocked_by` of the differential lists it.
    """
    try:
        require_signer(actor, case)
        require_unsigned(case)
        require_other_hands(actor, case)
    except HematoVisionError as error:
        return error.message
    return ""


def require_unsigned(case: Case) -> None:
    if case.status == CaseStatus.VOID:
        raise Conflict("case_void", "This case is void: nothing of it can be released.")
    if case.status in SIGNED:
        message = "The report of this case is signed already. Amend or correct it to make a new version."
        raise Conflict("already_released", message)


def require_other_hands(actor: User, case: Case) -> None:
    """Where the laboratory wants four eyes: who uploaded an image that counts does not sign."""
    if settings_of(case.laboratory_id).uploader_may_release:
        return
    if CellImage.objects.filter(case=case, uploaded_by=actor, void=None).exists():
        message = "You uploaded images of this case, and your laboratory wants somebody else to release it."
        raise NotAllowed("uploader_may_not_release", message)


def require_nothing_in_the_way(case: Case, reason: str) -> None:
    """Raises Conflict (release_blocked). Too few cells are no obstacle where the signer says why."""
    blockers = differential_of(case, tally_of(case), settings_of(case.laboratory_id)).blocked_by
    if remaining := [blocker for blocker in blockers if not (reason and blocker.code == "below_target_count")]:
        message = "The report can't be released yet. " + " ".join(blocker.message for blocker in remaining)
        if [blocker.code for blocker in remaining] == ["below_target_count"]:
            message += " To release it all the same, give a reason."
        raise Conflict("release_blocked", message, errors=[blocker.as_json() for blocker in remaining])


def sign(*, actor: User, case: Case, reason: str, comment: str) -> Report:
    """Freeze the locked case's content as its next version, and tell those who had a part in it."""
    previous = Report.objects.filter(case=case).order_by("-version").first()
    amendment = open_amendment(previous) if previous else None
    kind = ReportKind(amendment.kind) if amendment else ReportKind.RELEASED
    signature = Signature(
        report_id=uuid4(),
        version=previous.version + 1 if previous else 1,
        kind=kind,
        reason="\n".join(part for part in (amendment.reason if amendment else "", reason) if part),
        comment=comment,
        signer=actor,
        signed_at=timezone.now(),
        replaces=previous,
    )
    payload_json = canonical_json(build_payload(case, signature=signature))
    report = Report(
        id=signature.report_id,
        case=case,
        version=signature.version,
        kind=kind,
        payload_json=payload_json,
        sha256=payload_sha256(payload_json),
        signed_by=actor,
        reason=signature.reason,
        signed_at=signature.signed_at,
    )
    report.save()
    move_case(case, CaseStatus(kind.value))
    audit.record(
        action=SIGNED_ACTIONS[kind],
        actor=actor,
        target=report,
        case=str(case.pk),
        version=report.version,
        sha256=report.sha256,
    )
    if kind in NOTIFICATIONS:
        notify_involved(report, NOTIFICATIONS[kind])
    announce_report(report)
    return report


def notify_involved(report: Report, kind: NotificationKind) -> None:
    """Tell everybody who uploaded, reviewed, was assigned or signed before; the signer knows already."""
    case = report.case
    involved = (
        Q(pk__in=case.images.values("uploaded_by"))
        | Q(pk__in=Review.objects.filter(image__case=case).values("reader"))
        | Q(pk__in=case.reports.values("signed_by"))
        | Q(pk=case.assigned_to_id)
    )
    for person in User.objects.filter(involved).exclude(role=Role.SERVICE):
        notify(user=person, kind=kind, case=case, report=report, actor=report.signed_by)


def check_password(
    *, actor: User, password: str, case: Case | None = None, nothing: str = "Nothing was signed"
) -> None:
    """Make sure that the signer is at the keyboard. Each wrong try is in the audit trail, which also counts them.

    In a transaction of its own, which locks nothing but the signer: tries at the same moment are counted one by one,
    whatever process they reach. Raises NotAllowed (wrong_password), TooManyTries (too_many_tries).
    """
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=actor.pk)
        since = timezone.now() - PASSWORD_WINDOW
        tries = AuditEvent.objects.filter(actor=actor, laboratory=actor.laboratory, action=WRONG_PASSWORD, at__gt=since)
        too_many = tries.count() >= PASSWORD_TRIES
        right = not too_many and actor.check_password(password)
        if not right and not too_many:
            audit.record(action=WRONG_PASSWORD, actor=actor, target=case)
    if too_many:
        message = "The password was wrong too often. Wait five minutes and try again."
        raise TooManyTries("too_many_tries", message)
    if not right:
        raise NotAllowed("wrong_password", f"That is not your password. {nothing}; try again.")


@transaction.atomic
def amend_report(*, actor: User, case: Case, kind: str, reason: str) -> Amendment:
    """Open a signed case again, to amend its report or to correct it. The old report stays in force meanwhile.

    Raises NotAllowed; InvalidInput (unknown_kind, reason_missing, reason_too_long); Conflict (case_void,
    not_released, already_being_amended).
    """
    require_signer(actor, case)
    if kind not in AmendmentKind.values:
        raise InvalidInput("unknown_kind", "A report is either amended (nothing was wrong) or corrected.")
    reason = required_reason(reason)
    locked = Case.objects.select_for_update().get(pk=case.pk)
    report = Report.objects.filter(case=locked).order_by("-version").first()
    if locked.status == CaseStatus.VOID:
        raise Conflict("case_void", "This case is void, so its report can't be amended.")
    if report is None:
        raise Conflict("not_released", "Nothing is signed yet, so there is nothing to amend. Review and release first.")
    if locked.status not in SIGNED:
        message = "This report is being amended already. Sign the new version first."
        raise Conflict("already_being_amended", message)
    amendment = Amendment(case=locked, report=report, kind=kind, reason=reason, by=actor)
    amendment.save()
    move_case(locked, CaseStatus.IN_REVIEW)
    audit.record(action="amendment_opened", actor=actor, target=report, case=str(case.pk), kind=kind)
    case.refresh_from_db(fields=["status"])
    return amendment


def record_export(*, actor: User, report: Report, kind: str) -> None:
    """Note that the report left the system as `kind` (pdf, fhir, json, csv). Raises Conflict (report_altered)."""
    require_whole(report)
    audit.record(action="report_exported", actor=actor, target=report, case=str(report.case_id), kind=kind)


def export_draft(*, actor: User, case: Case, kind: str) -> dict[str, Any]:
    """The payload of the case while nothing is signed, and a note that it left the system as `kind`.

    Raises Conflict (already_released, case_void): what is signed is taken from its report.
    """
    require_unsigned(case)
    audit.record(action="draft_exported", actor=actor, target=case, kind=kind)
    return draft_payload(case)


def record_view(*, actor: User, report: Report) -> None:
    """Note who has seen the report."""
    audit.record(action="report_viewed", actor=actor, target=report, case=str(report.case_id))


def require_whole(report: Report) -> None:
    """Raises Conflict (report_altered) where the stored content is no longer what was signed."""
    if not report.is_whole:
        message = "The stored report is no longer what was signed, so it is not handed out. Tell your administrator."
        raise Conflict("report_altered", message)
