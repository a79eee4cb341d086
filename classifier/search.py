"""What the search lists: the cases whose accession number begins with a text, or whose patient pseudonym it is."""

from uuid import UUID

from accounts.models import User
from classifier.models import Case

NUMBER_BEGINS, PSEUDONYM = "number_begins", "pseudonym"


def cases_found(user: User, text: str, most: int) -> dict[UUID, str]:
    """The first such cases that the user sees, and by what each is found: those that begin so, then the pseudonym's,
    each the newest first.

    Keys alone, and each by an index of its own: with what a row shows, and asked in one, all cases would be read.
    """
    own = Case.objects.visible_to(user).order_by("-opened_at", "-id")
    found = dict.fromkeys(own.number_begins(text).values_list("pk", flat=True)[:most], NUMBER_BEGINS)
    if len(found) < most:
        bearing = own.filter(patient_pseudonym=text).exclude(pk__in=list(found)).values_list("pk", flat=True)
        found |= dict.fromkeys(bearing[: most - len(found)], PSEUDONYM)
    return found
