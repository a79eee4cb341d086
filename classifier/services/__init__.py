"""What people can do. Every door (page, API, admin, command) calls these; nothing else changes a case or an image."""

from classifier.services.batches import (
    add_to_batch,
    cancel_batch,
    close_folder_batch,
    open_folder_batch,
    pause_batch,
    record_batch_export,
    resume_batch,
    retry_failed,
    start_batch,
    submit_archive,
)
from classifier.services.cases import (
    assign_case,
    change_case,
    generated_accession_number,
    open_case,
    open_quick_case,
    void_case,
)
from classifier.services.emergency import end_emergency_access, open_emergency_access
from classifier.services.exports import record_export_download, request_export, withdraw_export
from classifier.services.images import add_image, add_image_to_quick_case, requeue_image, void_image
from classifier.services.laboratory import save_laboratory_settings
from classifier.services.notifications import mark_all_read, mark_read
from classifier.services.reports import amend_report, release_report
from classifier.services.rereads import close_read_reread, close_reread, draw_reread, read_blind
from classifier.services.retention import erase_pseudonym, lift_hold, place_hold, set_retention_rule
from classifier.services.reviews import review_image
from classifier.services.trials import may_try, try_model
from classifier.services.webhooks import (
    add_endpoint,
    replay_message,
    rotate_secret,
    send_now,
    send_test_message,
    switch_off_endpoint,
)

__all__ = [
    "add_endpoint",
    "add_image",
    "add_image_to_quick_case",
    "add_to_batch",
    "amend_report",
    "assign_case",
    "cancel_batch",
    "change_case",
    "close_folder_batch",
    "close_read_reread",
    "close_reread",
    "draw_reread",
    "end_emergency_access",
    "erase_pseudonym",
    "generated_accession_number",
    "lift_hold",
    "mark_all_read",
    "mark_read",
    "may_try",
    "open_case",
    "open_emergency_access",
    "open_folder_batch",
    "open_quick_case",
    "pause_batch",
    "place_hold",
    "read_blind",
    "record_batch_export",
    "record_export_download",
    "release_report",
    "replay_message",
    "request_export",
    "requeue_image",
    "resume_batch",
    "retry_failed",
    "review_image",
    "rotate_secret",
    "save_laboratory_settings",
    "send_now",
    "send_test_message",
    "set_retention_rule",
    "start_batch",
    "submit_archive",
    "switch_off_endpoint",
    "try_model",
    "void_case",
    "void_image",
    "withdraw_export",
]
