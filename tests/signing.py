"""A case that a reader can sign, and the laboratory's settings that allow it."""

from typing import Any

from accounts.models import Laboratory, User
from classifier import services
from classifier.laboratory_settings import start_cell_types
from classifier.models import Case, LaboratorySettings, ModelVersion
from tests.factories import image_in_state, prediction_of


def settings_row(laboratory: Laboratory, **changes: Any) -> LaboratorySettings:
    """A version of the settings: the start values, but one cell is enough; `changes` go before."""
    usual: dict[str, Any] = {"version": 1, "target_count": 1, "cell_types": start_cell_types()}
    row = LaboratorySettings(laboratory=laboratory, **{**usual, **changes})
    row.save()
    return row


def ready_to_sign(case: Case, *, technologist: User, model_version: ModelVersion) -> Case:
    """The case with two reviewed cells, one confirmed and one corrected: nothing stands in the way of its release."""
    settings_row(case.laboratory, time_zone="Europe/Berlin")
    for verdict, final_label in (("CONFIRMED", ""), ("CORRECTED", "neutrophil")):
        image = image_in_state("classified", case=case, uploaded_by=technologist)
        prediction_of(image, model_version)
        services.review_image(actor=technologist, image=image, verdict=verdict, final_label=final_label)
    case.refresh_from_db()
    return case
