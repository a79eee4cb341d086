"""What people can do. Every door (page, API, admin, command) calls these; nothing else changes a case or an image."""

from classifier.services.cases import (
    assign_case,
    change_case,
    generated_accession_number,
    open_case,
    open_quick_case,
    void_case,
)
from classifier.services.images import add_image, add_image_to_quick_case, requeue_image, void_image
from classifier.services.laboratory import save_laboratory_settings
from classifier.services.notifications import mark_all_read, mark_read
from classifier.services.reports import amend_report, release_report
from classifier.services.reviews import review_image
from classifier.services.trials import may_try, try_model

__all__ = [
    "add_image",
    "add_image_to_quick_case",
    "amend_report",
    "assign_case",
    "change_case",
    "generated_accession_number",
    "mark_all_read",
    "mark_read",
    "may_try",
    "open_case",
    "open_quick_case",
    "release_report",
    "requeue_image",
    "review_image",
    "save_laboratory_settings",
    "try_model",
    "void_case",
    "void_image",
]
