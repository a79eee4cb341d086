"""Which requests of the pages are a look that the audit trail has: a page or a picture that a person opens.

Not what a script fetches for a page that is open already, not lists, and not thumbnails.
"""

from accounts.middleware import SignedInRequest
from classifier.models import Case, CellImage
from classifier.services.viewing import ORIGINAL, record_case_view, record_image_view


def is_look(request: SignedInRequest) -> bool:
    return request.method == "GET" and "X-Fragment" not in request.headers


def page_name(request: SignedInRequest) -> str:
    return (request.resolver_match.url_name if request.resolver_match else None) or ""


def note_case_look(request: SignedInRequest, case: Case) -> None:
    """For pages that are always whole ones, whatever the request says of itself."""
    if request.method == "GET":
        record_case_view(actor=request.user, case=case, page=page_name(request))


def note_image_look(request: SignedInRequest, image: CellImage) -> None:
    if is_look(request):
        record_image_view(actor=request.user, image=image, page=page_name(request))


def note_picture_look(request: SignedInRequest, image: CellImage) -> None:
    """A small tile of an image whose thumbnail is not drawn yet shows the picture itself: that is no look."""
    is_tile = "tile" in request.GET and not image.has_thumbnail
    if request.method == "GET" and not is_tile:
        record_image_view(actor=request.user, image=image, page=ORIGINAL)
