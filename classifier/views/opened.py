"""Pages that emergency access opens: they say so on top, and the other laboratory's trail has every look."""

from django.db.models import Model
from django.http import Http404

from accounts.middleware import SignedInRequest
from classifier.emergency import access_to
from classifier.models import Case
from classifier.services.emergency import record_emergency_view


def note_emergency(request: SignedInRequest, case: Case, shown: Model | None = None) -> bool:
    """Whether the case is read by emergency access; then the page bears the banner. No query for the own laboratory.

    `shown` is what is looked at, for the trail; a script's questions about a page that is open already leave it out.
    """
    if case.laboratory_id == request.user.laboratory_id:
        return False
    access = access_to(request.user, case)
    if access is None:
        # The hour ended since the case was found.
        raise Http404
    request.emergency_access = access  # type: ignore[attr-defined]
    if shown is not None:
        page = request.resolver_match.url_name if request.resolver_match else ""
        record_emergency_view(actor=request.user, access=access, target=shown, page=page or "")
    return True
