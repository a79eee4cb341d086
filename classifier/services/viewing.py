"""Notes in the audit trail of who has opened a case or an image, and as what."""

from accounts import audit
from accounts.models import User
from classifier.models import Case, CellImage

ORIGINAL = "original"


def record_case_view(*, actor: User, case: Case, page: str) -> None:
    """Note who has opened the case; `page` is the name of the page or of the API's address."""
    audit.record(action="case_viewed", actor=actor, target=case, page=page)


def record_image_view(*, actor: User, image: CellImage, page: str) -> None:
    """Note who has opened the image: its page, its description over the API, or (ORIGINAL) the picture itself."""
    audit.record(action="image_viewed", actor=actor, target=image, case=str(image.case_id), page=page)
