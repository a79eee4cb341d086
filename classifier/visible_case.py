"""The one case that a request is about, where that is asked so often that its query is built once."""

from uuid import UUID

from django.db import models
from django.db.models import Q

from accounts.built_statements import BuiltSelect, Given
from accounts.models import User
from classifier.models import Case
from classifier.querysets import visible_to

CASE_OF_LABORATORY = BuiltSelect(
    Case.objects.filter(
        laboratory=Given("laboratory", models.UUIDField()), pk=Given("case", models.UUIDField())
    ).order_by()
)


def visible_case(user: User, case_id: UUID) -> Case | None:
    """The case, if `visible_to` lets the user see it.

    The rule stays that one's: whatever it says beside "of this laboratory" is asked as it says it.
    """
    rule = visible_to(user, "laboratory")
    if rule == Q(laboratory=user.laboratory_id):
        return CASE_OF_LABORATORY.one(laboratory=user.laboratory_id, case=case_id)
    return Case.objects.filter(rule, pk=case_id).first()
