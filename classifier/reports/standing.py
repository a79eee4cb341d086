"""What a report is worth now. It changes after the report was signed, so it stands beside the payload, never in it."""

from django.db import models


class Standing(models.TextChoices):
    DRAFT = "draft", "Draft"
    CURRENT = "current", "In force"
    BEING_AMENDED = "being_amended", "Being amended"
    SUPERSEDED = "superseded", "Superseded"
    ENTERED_IN_ERROR = "entered_in_error", "Entered in error"


def standing_of(*, is_newest: bool, being_amended: bool, void: bool) -> Standing:
    """The standing of a signed report: a void case goes before all, a newer version before an amendment under way."""
    if void:
        return Standing.ENTERED_IN_ERROR
    if not is_newest:
        return Standing.SUPERSEDED
    return Standing.BEING_AMENDED if being_amended else Standing.CURRENT
