"""A typed client of HematoVision's API, with nothing but the standard library."""

from hematovision_client.answers import (
    Amendment,
    Batch,
    Case,
    CaseDetail,
    Differential,
    Image,
    ListedBatch,
    Prediction,
    Report,
    ReportVersion,
    Review,
    SignedReport,
    SubmittedBatch,
    UploadedImage,
)
from hematovision_client.client import Client
from hematovision_client.problem import FieldError, Problem
from hematovision_client.uploading import Progress, Upload
from hematovision_client.webhook_signature import verify_signature

__all__ = [
    "Amendment",
    "Batch",
    "Case",
    "CaseDetail",
    "Client",
    "Differential",
    "FieldError",
    "Image",
    "ListedBatch",
    "Prediction",
    "Problem",
    "Progress",
    "Report",
    "ReportVersion",
    "Review",
    "SignedReport",
    "SubmittedBatch",
    "Upload",
    "UploadedImage",
    "verify_signature",
]
