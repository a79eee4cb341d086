"""Retention rules, legal holds, and the erasure of a patient pseudonym: an administrator's acts."""

import json
from collections.abc import Iterator

from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts import audit
from accounts.models import Laboratory, User
from accounts.roles import Verb
from classifier.errors import Conflict, InvalidInput
from classifier.models import Case, IdempotentRequest, LegalHold, PseudonymErasure, RetentionRule
from classifier.retention import (
    ERASED,
    LEAST_DAYS,
    MOST_DAYS,
    cases_on_hold,
    consequence_of,
    digest_of,
    erasures_of,
    rule_of,
)
from classifier.services.cases import locked
from classifier.services.permission import require, required_reason, storable


def set_retention_rule(*, actor: User, keep_days: int | None, reason: str, seen: int) -> RetentionRule:
    """Keep the pictures of signed and void cases for so many days, or (None) for ever. It counts from a day later on.

    `seen` is how many pictures the actor was told would go now. Nothing is removed here: the machine does that.
    Raises NotAllowed; InvalidInput (keep_days_out_of_range, reason_missing, reason_too_long); Conflict
    (pictures_changed, rule_changed).
    """
    require(actor, Verb.ADMINISTER)
    if keep_days is not None and not LEAST_DAYS <= keep_days <= MOST_DAYS:
        message = f"Pictures are kept for {LEAST_DAYS} to {MOST_DAYS:,} days, or for ever."
        raise InvalidInput("keep_days_out_of_range", message)
    reason = required_reason(reason)
    assert actor.laboratory  # noqa: S101 (who administers has one)
    now = consequence_of(actor.laboratory.pk, keep_days, timezone.now())
    if now.pictures != seen:
        message = f"By now {now.pictures:,} pictures of {now.cases:,} cases would go, not {seen:,}. Look again."
        raise Conflict("pictures_changed", message)
    before = rule_of(actor.laboratory.pk)
    try:
        with transaction.atomic():
            # The removal holds the laboratory as well: once this rule is there, nothing goes by the one before.
            Laboratory.objects.select_for_update(no_key=True).get(pk=actor.laboratory.pk)
            rule = RetentionRule.objects.create(
                laboratory=actor.laboratory,
                version=before.version + 1 if before else 1,
                keep_days=keep_days,
                reason=reason,
                by=actor,
            )
            audit.record(
                action="retention_rule_set",
                actor=actor,
                target=rule,
                version=rule.version,
                keep_days=keep_days,
                before=before.keep_days if before else None,
                pictures=seen,
            )
    except IntegrityError as error:
        raise Conflict("rule_changed", "Somebody else has just set a rule. Look at it, then set yours.") from error
    return rule


def place_hold(*, actor: User, case: Case, reason: str) -> LegalHold:
    """Nothing of the case is removed or erased until the hold is lifted.

    Raises NotAllowed, InvalidInput (reason_missing, reason_too_long), Conflict (already_on_hold).
    """
    return hold_step(actor=actor, case=case, reason=reason, holds=True)


def lift_hold(*, actor: User, case: Case, reason: str) -> LegalHold:
    """Let the retention rule count for the case again.

    Raises NotAllowed, InvalidInput (reason_missing, reason_too_long), Conflict (not_on_hold).
    """
    return hold_step(actor=actor, case=case, reason=reason, holds=False)


@transaction.atomic
def hold_step(*, actor: User, case: Case, reason: str, holds: bool) -> LegalHold:
    require(actor, Verb.ADMINISTER, case)
    reason = required_reason(reason)
    # The removal takes the same lock, so a hold is either seen by it or comes after it.
    case = locked(case)
    newest = LegalHold.objects.filter(case=case).order_by("-version").first()
    if holds and newest and newest.holds:
        raise Conflict("already_on_hold", "This case is on hold already.")
    if not holds and not (newest and newest.holds):
        raise Conflict("not_on_hold", "This case is not on hold.")
    step = LegalHold.objects.create(
        case=case, version=newest.version + 1 if newest else 1, holds=holds, reason=reason, by=actor
    )
    audit.record(action="hold_placed" if holds else "hold_lifted", actor=actor, target=case, hold=str(step.pk))
    return step


@transaction.atomic
def erase_pseudonym(*, actor: User, pseudonym: str, reason: str, seen: int) -> PseudonymErasure:
    """Take a pseudonym out of every case of the laboratory, and keep the evidence that there was one.

    `seen` is how many cases the actor was told of. Once it is erased, the same again changes nothing.
    Raises NotAllowed; InvalidInput (reason_missing, reason_too_long, unstorable_text, pseudonym_unknown); Conflict
    (on_legal_hold, cases_changed).
    """
    require(actor, Verb.ADMINISTER)
    pseudonym, reason = storable(pseudonym), required_reason(reason)
    assert actor.laboratory  # noqa: S101 (who administers has one)
    bearing = Case.objects.filter(laboratory=actor.laboratory, patient_pseudonym=pseudonym)
    cases = list(bearing.select_for_update(no_key=True).order_by("pk")) if pseudonym else []
    if not cases:
        if earlier := erasures_of(actor.laboratory.pk, pseudonym).first():
            return earlier
        raise InvalidInput("pseudonym_unknown", "No case of your laboratory has this pseudonym.")
    ids = [case.pk for case in cases]
    if held := cases_on_hold(actor.laboratory.pk).filter(pk__in=ids).count():
        message = f"{held} of these cases {'is' if held == 1 else 'are'} on legal hold, so nothing was erased."
        raise Conflict("on_legal_hold", message)
    if len(cases) != seen:
        message = f"By now {len(cases):,} cases have this pseudonym, not {seen:,}. Look again."
        raise Conflict("cases_changed", message)
    bearing.filter(pk__in=ids).update(patient_pseudonym="")
    erasure = PseudonymErasure.objects.create(
        laboratory=actor.laboratory,
        digest=digest_of(actor.laboratory.pk, pseudonym),
        cases=[str(pk) for pk in ids],
        reason=reason,
        by=actor,
    )
    audit.record(action="pseudonym_erasure_made", actor=actor, target=erasure, cases=len(cases))
    audit.record_many(audit.event(action=ERASED, actor=actor, target=case, erasure=str(erasure.pk)) for case in cases)
    forget_answers(actor.laboratory, pseudonym)
    return erasure


def forget_answers(laboratory: Laboratory, pseudonym: str) -> None:
    """Answers that are kept for repeated requests may hold it: who asks again is told that the answer is gone."""
    written = json.dumps(pseudonym, ensure_ascii=False).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    # As the API writes it; what is found is read, since SQLite compares without regard to case.
    kept = IdempotentRequest.objects.filter(body__contains=f'"patient_pseudonym":{written}')
    told = {pk: set(cases_with(json.loads(body), pseudonym)) for pk, body in kept.values_list("pk", "body")}
    every = set().union(*told.values())
    own = {str(pk) for pk in Case.objects.filter(laboratory=laboratory, pk__in=every).values_list("pk", flat=True)}
    forgotten = [pk for pk, cases in told.items() if cases & own]
    IdempotentRequest.objects.filter(pk__in=forgotten).update(body="", holds_secret=True)


def cases_with(answer: object, pseudonym: str) -> Iterator[str]:
    """The ids of the cases that an answer says to have this pseudonym."""
    if isinstance(answer, list):
        for item in answer:
            yield from cases_with(item, pseudonym)
    elif isinstance(answer, dict):
        if answer.get("patient_pseudonym") == pseudonym:
            # A report names its case; a case is one.
            yield answer.get("case") or answer["id"]
        for item in answer.values():
            yield from cases_with(item, pseudonym)
