from django.contrib.auth.decorators import login_not_required
from django.urls import path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.permissions import AllowAny

from classifier.api import (
    batches,
    differential,
    holds,
    laboratory,
    models,
    notifications,
    reports,
    reviews,
    trials,
    views,
    webhooks,
)
from classifier.api.idempotency import honour_keys
from classifier.waiting import batch_waits, image_waits, long_polled

public = {"permission_classes": [AllowAny], "authentication_classes": []}

urlpatterns = [
    path("cases/", views.CaseList.as_view(), name="api-cases"),
    path("cases/search/", views.CaseSearch.as_view(), name="api-case-search"),
    path("cases/<uuid:case_id>/", views.CaseDetail.as_view(), name="api-case"),
    path("cases/<uuid:case_id>/assign/", views.CaseAssignment.as_view(), name="api-case-assign"),
    path("cases/<uuid:case_id>/void/", views.CaseVoid.as_view(), name="api-case-void"),
    path("cases/<uuid:case_id>/hold/", holds.CaseHold.as_view(), name="api-case-hold"),
    path("cases/<uuid:case_id>/hold/lift/", holds.CaseHoldLift.as_view(), name="api-case-hold-lift"),
    path("cases/<uuid:case_id>/images/", views.CaseImages.as_view(), name="api-case-images"),
    path("cases/<uuid:case_id>/differential/", differential.CaseDifferential.as_view(), name="api-case-differential"),
    path("cases/<uuid:case_id>/reports/", reports.CaseReports.as_view(), name="api-case-reports"),
    path("cases/<uuid:case_id>/reports/draft/fhir/", reports.CaseDraftFhir.as_view(), name="api-case-draft-fhir"),
    path("cases/<uuid:case_id>/amendments/", reports.CaseAmendments.as_view(), name="api-case-amendments"),
    path("images/", views.ImageList.as_view(), name="api-images"),
    path("images/<uuid:image_id>/", views.ImageDetail.as_view(), name="api-image"),
    path("images/<uuid:image_id>/file/", views.ImageFile.as_view(), name="api-image-file"),
    path("images/<uuid:image_id>/void/", views.ImageVoid.as_view(), name="api-image-void"),
    path("images/<uuid:image_id>/reviews/", reviews.ImageReviews.as_view(), name="api-image-reviews"),
    path("images/<uuid:image_id>/requeue/", views.ImageRequeue.as_view(), name="api-image-requeue"),
    path("batches/", batches.BatchList.as_view(), name="api-batches"),
    path("batches/<uuid:batch_id>/", batches.BatchDetail.as_view(), name="api-batch"),
    path("batches/<uuid:batch_id>/start/", batches.BatchStart.as_view(), name="api-batch-start"),
    path("batches/<uuid:batch_id>/pause/", batches.BatchPause.as_view(), name="api-batch-pause"),
    path("batches/<uuid:batch_id>/resume/", batches.BatchResume.as_view(), name="api-batch-resume"),
    path("batches/<uuid:batch_id>/cancel/", batches.BatchCancel.as_view(), name="api-batch-cancel"),
    path("batches/<uuid:batch_id>/retry-failed/", batches.BatchRetryFailed.as_view(), name="api-batch-retry-failed"),
    path("batches/<uuid:batch_id>/results.csv", batches.BatchResults.as_view(), name="api-batch-results"),
    path("notifications/", notifications.NotificationList.as_view(), name="api-notifications"),
    path(
        "notifications/<uuid:notification_id>/read/",
        notifications.NotificationRead.as_view(),
        name="api-notification-read",
    ),
    path("cases/<uuid:case_id>/trials/", trials.CaseTrials.as_view(), name="api-case-trials"),
    path("trials/<uuid:trial_id>/", trials.TrialDetail.as_view(), name="api-trial"),
    path("reports/<uuid:report_id>/", reports.ReportDetail.as_view(), name="api-report"),
    path("reports/<uuid:report_id>/pdf/", reports.ReportPdf.as_view(), name="api-report-pdf"),
    path("reports/<uuid:report_id>/fhir/", reports.ReportFhir.as_view(), name="api-report-fhir"),
    path("reports/<uuid:report_id>/csv/", reports.ReportCsv.as_view(), name="api-report-csv"),
    path("reports/<uuid:report_id>/cells/", reports.ReportCells.as_view(), name="api-report-cells"),
    path("webhooks/", webhooks.Webhooks.as_view(), name="api-webhooks"),
    path("webhooks/<uuid:endpoint_id>/", webhooks.WebhookDetail.as_view(), name="api-webhook"),
    path("webhooks/<uuid:endpoint_id>/secret/", webhooks.WebhookSecret.as_view(), name="api-webhook-secret"),
    path("webhooks/<uuid:endpoint_id>/test/", webhooks.WebhookTest.as_view(), name="api-webhook-test"),
    path("webhooks/<uuid:endpoint_id>/send-now/", webhooks.WebhookSendNow.as_view(), name="api-webhook-send-now"),
    path("webhooks/<uuid:endpoint_id>/messages/", webhooks.WebhookMessages.as_view(), name="api-webhook-messages"),
    path(
        "webhooks/<uuid:endpoint_id>/messages/<uuid:message_id>/replay/",
        webhooks.WebhookReplay.as_view(),
        name="api-webhook-replay",
    ),
    path("reviewers/", views.ReviewerList.as_view(), name="api-reviewers"),
    path("laboratory/settings/", laboratory.SettingsOfLaboratory.as_view(), name="api-laboratory-settings"),
    path("cell-types/", models.CellTypes.as_view(), name="api-cell-types"),
    path("models/", models.ModelList.as_view(), name="api-models"),
    path("models/<uuid:version_id>/", models.ModelDetail.as_view(), name="api-model"),
    path("schema/", login_not_required(SpectacularAPIView.as_view(**public)), name="api-schema"),
    path(
        "docs/",
        login_not_required(SpectacularSwaggerSplitView.as_view(url_name="api-schema", **public)),
        name="api-docs",
    ),
]
honour_keys(urlpatterns)
long_polled(views.ImageDetail, image_waits)
long_polled(batches.BatchDetail, batch_waits)
