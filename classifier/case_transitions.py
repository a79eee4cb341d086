"""The one table of moves between the states of a case. Nobody else assigns a case's status."""

from classifier.errors import InvalidTransition
from classifier.models import Case, CaseStatus
from classifier.models.case import EDITABLE

SIGNED = frozenset({CaseStatus.RELEASED, CaseStatus.AMENDED, CaseStatus.CORRECTED})
CASE_TRANSITIONS: frozenset[tuple[CaseStatus, CaseStatus]] = frozenset(
    {(CaseStatus.OPEN, CaseStatus.IN_REVIEW)}
    | {(CaseStatus.IN_REVIEW, signed) for signed in SIGNED}
    | {(signed, CaseStatus.IN_REVIEW) for signed in SIGNED}
    | {(status, CaseStatus.VOID) for status in CaseStatus if status is not CaseStatus.VOID}
)


def move_case(case: Case, target: CaseStatus) -> None:
    """Move the case in one guarded statement, and the object with it.

    Raises InvalidTransition for a pair that the table does not have, or when the case is no longer where it was.
    """
    source = CaseStatus(case.status)
    # What takes pictures may have some that are due one day.
    with_it = {"emptied_at": None} if target in EDITABLE else {}
    moved = (source, target) in CASE_TRANSITIONS and (
        Case.objects.filter(pk=case.pk, status=source).update(status=target, **with_it)
    )
    if not moved:
        message = f"The case is {source.label.lower()}, so it can't become {target.label.lower()}."
        raise InvalidTransition("invalid_transition", message)
    case.status = target
