"""Cases with images in a chosen state of reading, made by the same services that people use."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from accounts.models import User
from classifier import services
from classifier.models import Case, ModelVersion
from tests.factories import image_in_state, prediction_of

UNSURE = {"label": "", "abstained": True, "reason_code": "not_sure", "reason": "The model is not sure."}
Build = Callable[..., Case]


def a(label: str, confidence: float = 0.95, **fields: Any) -> dict[str, Any]:
    """An image of which the model says `label`."""
    return {"label": label, "suggestion": label, "confidence": confidence, **fields}


def builder(technologist: User, reader: User, model_version: ModelVersion) -> Build:
    """Builds cases with images: each is a prediction's fields, and `status`, `final` (reviewed by `by`) or `void`."""

    def a_case(number: str, *images: dict[str, Any], opened_at: datetime | None = None, **fields: Any) -> Case:
        case = services.open_case(actor=technologist, accession_number=number, **fields)
        if opened_at:
            Case.objects.filter(pk=case.pk).update(opened_at=opened_at)
        for wanted in images:
            said = dict(wanted)
            status, final, by = said.pop("status", "classified"), said.pop("final", ""), said.pop("by", reader)
            void, version = said.pop("void", False), said.pop("model", model_version)
            image = image_in_state(status, case=case, uploaded_by=technologist)
            if status == "classified":
                prediction = prediction_of(image, version, **said)
                if final:
                    verdict = "CONFIRMED" if final == prediction.label else "CORRECTED"
                    label = "" if verdict == "CONFIRMED" else final
                    services.review_image(actor=by, image=image, verdict=verdict, final_label=label)
            if void:
                services.void_image(actor=reader, image=image, reason="Smudged")
        case.refresh_from_db()
        return case

    return a_case
