"""The rows of the clinical flow. Facts (predictions, reviews, reports ...) are insert-only; evidence stays."""

from classifier.models.case import Case, CaseStatus
from classifier.models.image import CellImage, ImageStatus, Priority, original_path
from classifier.models.laboratory_settings import LaboratorySettings
from classifier.models.model_version import ModelVersion, WorkerHeartbeat
from classifier.models.notification import Notification, NotificationKind
from classifier.models.prediction import CELL_TYPE_CHOICES, Prediction
from classifier.models.report import Amendment, AmendmentKind, Report, ReportKind
from classifier.models.review import Review, Verdict
from classifier.models.trial import ModelTrial, TrialPrediction
from classifier.models.void import Void

__all__ = [
    "CELL_TYPE_CHOICES",
    "Amendment",
    "AmendmentKind",
    "Case",
    "CaseStatus",
    "CellImage",
    "ImageStatus",
    "LaboratorySettings",
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
    "WorkerHeartbeat",
    "original_path",
]
