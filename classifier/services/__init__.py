"""What people can do. Every door (page, API, admin, command) calls these; nothing else changes a case or an image."""

from classifier.services.cases import generated_accession_number, open_case, open_quick_case
from classifier.services.images import add_image, add_image_to_quick_case, requeue_image, void_image
from classifier.services.reviews import review_image

__all__ = [
    "add_image",
    "add_image_to_quick_case",
    "generated_accession_number",
    "open_case",
    "open_quick_case",
    "requeue_image",
    "review_image",
    "void_image",
]
