"""The questions that a service asks first."""

from django.db import connection

from accounts.built_statements import prepared_cursor
from accounts.models import User
from accounts.roles import Verb
from classifier.errors import Conflict, InvalidInput, NotAllowed
from classifier.models import Case, CaseStatus

CASE_ID = Case._meta.get_field("id")
# On SQLite a transaction that writes is alone from its beginning.
HOLD = {
    "postgresql": "SELECT status FROM classifier_case WHERE id = %s FOR KEY SHARE",
    "sqlite": "SELECT status FROM classifier_case WHERE id = %s",
}


def may_in(case: Case, actor: User, verb: Verb) -> bool:
    """Whether the actor's role has the verb and the case is the own laboratory's, not one opened in an emergency."""
    return actor.may(verb) and case.laboratory_id == actor.laboratory_id


def require(actor: User, verb: Verb, case: Case | None = None) -> None:
    """Raises NotAllowed unless the actor's role has the verb and the case, if any, is the own laboratory's."""
    if not (actor.may(verb) if case is None else may_in(case, actor, verb)):
        role = actor.get_role_display().lower() if actor.role else "platform operator"
        raise NotAllowed("not_allowed", f"A {role} can't {verb} here. Ask your laboratory's administrator.")


def require_editable(case: Case) -> None:
    """Raises Conflict (case_released, case_void) unless the case takes images and reviews."""
    if case.status == CaseStatus.VOID:
        raise Conflict("case_void", "This case is void: nothing can be added to it or changed in it.")
    if not case.is_editable:
        message = "The report of this case is released, so it takes no images or reviews. Amend or correct it first."
        raise Conflict("case_released", message)


def held_open(case: Case) -> Case:
    """The case, with its status as it is now; it can't be released before this transaction ends, while others may hold
    it as well.

    Foreign keys are checked at the commit only, so without this an image could slip into a case being released.
    """
    with prepared_cursor(connection) as cursor:
        cursor.execute(HOLD[connection.vendor], [CASE_ID.get_db_prep_value(case.pk, connection)])
        (case.status,) = cursor.fetchone()
    return case


def storable(text: str) -> str:
    """The text, trimmed. Raises InvalidInput (unstorable_text) for NUL, which PostgreSQL can't keep."""
    if "\x00" in text:
        raise InvalidInput("unstorable_text", "The text holds a character that can't be stored (NUL). Take it out.")
    return text.strip()


def required_reason(reason: str) -> str:
    """The reason, trimmed. Raises InvalidInput (reason_missing, reason_too_long, unstorable_text)."""
    reason = storable(reason)
    if not reason:
        raise InvalidInput("reason_missing", "Say why, in a few words.")
    if len(reason) > 500:
        raise InvalidInput("reason_too_long", "A reason has at most 500 characters.")
    return reason
