"""The rows of the clinical flow. Facts (predictions, reviews, reports ...) are insert-only; evidence stays."""

from classifier.models.batch import SAME_PICTURE, Batch, BatchMember, BatchState
from classifier.models.case import Case, CaseStatus
from classifier.models.emergency_access import EmergencyAccess, EmergencyEnd, EmergencyMail
from classifier.models.export import Export, ExportKind, ExportState, export_path
from classifier.models.idempotent_request import IdempotentRequest
from classifier.models.image import CellImage, ImageStatus, Priority, original_path
from classifier.models.laboratory_settings import LaboratorySettings
from classifier.models.model_version import ModelVersion, WorkerHeartbeat
from classifier.models.notification import Notification, NotificationKind
from classifier.models.prediction import CELL_TYPE_CHOICES, Prediction
from classifier.models.report import Amendment, AmendmentKind, Report, ReportKind
from classifier.models.reread import BlindReading, BlindReread, RereadCell
from classifier.models.retention import LegalHold, PseudonymErasure, RemovedPicture, RetentionRule
from classifier.models.review import Review, Verdict
from classifier.models.trial import ModelTrial, TrialPrediction
from classifier.models.void import Void
from classifier.models.webhook import MessageState, WebhookEndpoint, WebhookEvent, WebhookMessage
from classifier.models.worker_counts import WorkerCounts

__all__ = [
    "CELL_TYPE_CHOICES",
    "SAME_PICTURE",
    "Amendment",
    "AmendmentKind",
    "Batch",
    "BatchMember",
    "BatchState",
    "BlindReading",
    "BlindReread",
    "Case",
    "CaseStatus",
    "CellImage",
    "EmergencyAccess",
    "EmergencyEnd",
    "EmergencyMail",
    "Export",
    "ExportKind",
    "ExportState",
    "IdempotentRequest",
    "ImageStatus",
    "LaboratorySettings",
    "LegalHold",
    "MessageState",
    "ModelTrial",
    "ModelVersion",
    "Notification",
    "NotificationKind",
    "Prediction",
    "Priority",
    "PseudonymErasure",
    "RemovedPicture",
    "Report",
    "ReportKind",
    "RereadCell",
    "RetentionRule",
    "Review",
    "TrialPrediction",
    "Verdict",
    "Void",
    "WebhookEndpoint",
    "WebhookEvent",
    "WebhookMessage",
    "WorkerCounts",
    "WorkerHeartbeat",
    "export_path",
    "original_path",
]
