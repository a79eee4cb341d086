"""What somebody with emergency access may not do: answered as forbidden, not as missing."""

from collections.abc import Callable

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse

from classifier.emergency import open_accesses

# The pages that emergency access opens, by the names of their addresses; only these ask `opened_to`.
OPENED_PAGES = frozenset(
    {
        "case",
        "case-changes",
        "case-differential",
        "case-tiles",
        "case-reports",
        "report",
        "report-file",
        "image",
        "image-file",
        "image-heat-map",
        "image-thumbnail",
    }
)


class EmergencyMiddleware:
    """Turns "not found" into "not allowed" for the other pages and acts of a case that the user may read just now.

    They all ask `visible_to`, which does not find the case. So only an answer that fails costs a query.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> None:
        """Raises PermissionDenied."""
        match = request.resolver_match
        if not isinstance(exception, Http404) or match is None or match.url_name in OPENED_PAGES:
            return
        if not request.user.is_authenticated:
            return
        opened = open_accesses(request.user)
        about_case, about_image = match.kwargs.get("case_id"), match.kwargs.get("image_id")
        if (about_case and opened.filter(case=about_case).exists()) or (
            about_image and opened.filter(case__images=about_image).exists()
        ):
            raise PermissionDenied from exception
