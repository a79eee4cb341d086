"""Pictures that are dropped on the bench or on a case."""

import uuid
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse

from accounts.middleware import SignedInRequest
from classifier import services
from classifier.errors import HematoVisionError
from classifier.models import Case, CellImage
from classifier.views.posting import posted_from


@posted_from("home")
def upload_to_bench(request: SignedInRequest) -> HttpResponse:
    """Pictures dropped on the bench go to a quick case, one a drop, that the first accepted picture opens."""
    try:
        case_id = uuid.UUID(request.POST.get("quick_case_id", ""))
    except ValueError:
        case_id = uuid.uuid4()

    def add(upload: UploadedFile) -> tuple[CellImage, bool]:
        return services.add_image_to_quick_case(actor=request.user, case_id=case_id, upload=upload)

    return answer_uploads(request, add, back=reverse("home"))


@posted_from("case")
def upload_to_case(request: SignedInRequest, case_id: uuid.UUID) -> HttpResponse:
    case = get_object_or_404(Case.objects.visible_to(request.user), pk=case_id)

    def add(upload: UploadedFile) -> tuple[CellImage, bool]:
        return services.add_image(actor=request.user, case=case, upload=upload)

    return answer_uploads(request, add, back=reverse("case", args=[case.pk]))


def answer_uploads(request: HttpRequest, add: Any, *, back: str) -> HttpResponse:
    """Every file has its own outcome: one that is refused leaves the others alone.

    A script sends one file and gets its card or its refusal; a plain form sends many and gets a page of outcomes.
    """
    outcomes = [outcome_of(add, upload) for upload in request.FILES.getlist("file")]
    if not outcomes:
        outcomes = [{"name": "", "code": "no_file", "message": "No file was chosen. Choose one picture or more."}]
    status = max(outcome.get("status", 400) for outcome in outcomes)
    if "X-Fragment" in request.headers:
        return render(
            request, "classifier/_upload_outcome.html", {"outcome": outcomes[0], "may_upload": True}, status=status
        )
    accepted = [outcome for outcome in outcomes if "image" in outcome]
    context = {"outcomes": outcomes, "accepted": len(accepted), "back": back}
    return render(request, "classifier/upload_outcomes.html", context, status=202 if accepted else status)


def outcome_of(add: Any, upload: UploadedFile) -> dict[str, Any]:
    try:
        image, created = add(upload)
    except HematoVisionError as error:
        return {"name": upload.name, "code": error.code, "message": error.message, "status": error.status}
    return {"name": upload.name, "image": image, "created": created, "status": 202 if created else 200}
