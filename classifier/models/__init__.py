"""The rows of the clinical flow. Facts (predictions, reviews, reports ...) are insert-only; evidence stays."""

from classifier.models.batch import SAME_PICTURE, Batch, BatchMember, BatchState
from classifier.models.case import Case, CaseStatus
from classifier.models.idempotent_request import IdempotentRequest
from classifier.models.image import CellImage, ImageStatus, Priority, original_path
from classifier.models.laboratory_settings import LaboratorySettings
from classifier.models.model_version import ModelVersion, WorkerHeartbeat
from classifier.models.notification import Notification, NotificationKind
from classifier.models.prediction import CELL_TYPE_CHOICES, Prediction
from classifier.models.report import Amendment, AmendmentKind, Report, ReportKind
from classifier.models.review import Review, Verdict
from classifier.models.trial import ModelTrial, TrialPrediction
from classifier.models.void import Void
from classifier.models.webhook import MessageState, WebhookEndpoint, WebhookEvent, WebhookMessage

__all__ = [
    "CELL_TYPE_CHOICES",
    "SAME_PICTURE",
    "Amendment",
    "AmendmentKind",
    "Batch",
    "BatchMember",
    "BatchState",
    "Case",
    "CaseStatus",
    "CellImage",
    "IdempotentRequest",
    "ImageStatus",
    "LaboratorySettings",
    "MessageState",
    "ModelTrial",
    "ModelVersion",
    "Notification",
    "NotificationKind",
    "Prediction",
    "Priority",
    "Report",
    "ReportKind",
    "Review",
    "TrialPrediction",
    "Verdict",
    "Void",
    "WebhookEndpoint",
    "WebhookEvent",
    "WebhookMessage",
    "WorkerHeartbeat",
    "original_path",
]
