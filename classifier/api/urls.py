from django.contrib.auth.decorators import login_not_required
from django.urls import path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.permissions import AllowAny

from classifier.api import differential, reports, reviews, views

public = {"permission_classes": [AllowAny], "authentication_classes": []}

urlpatterns = [
    path("cases/", views.CaseList.as_view(), name="api-cases"),
    path("cases/<uuid:case_id>/", views.CaseDetail.as_view(), name="api-case"),
    path("cases/<uuid:case_id>/images/", views.CaseImages.as_view(), name="api-case-images"),
    path("cases/<uuid:case_id>/differential/", differential.CaseDifferential.as_view(), name="api-case-differential"),
    path("cases/<uuid:case_id>/reports/", reports.CaseReports.as_view(), name="api-case-reports"),
    path("cases/<uuid:case_id>/reports/draft/fhir/", reports.CaseDraftFhir.as_view(), name="api-case-draft-fhir"),
    path("cases/<uuid:case_id>/amendments/", reports.CaseAmendments.as_view(), name="api-case-amendments"),
    path("images/<uuid:image_id>/", views.ImageDetail.as_view(), name="api-image"),
    path("images/<uuid:image_id>/reviews/", reviews.ImageReviews.as_view(), name="api-image-reviews"),
    path("images/<uuid:image_id>/requeue/", views.ImageRequeue.as_view(), name="api-image-requeue"),
    path("reports/<uuid:report_id>/", reports.ReportDetail.as_view(), name="api-report"),
    path("reports/<uuid:report_id>/pdf/", reports.ReportPdf.as_view(), name="api-report-pdf"),
    path("reports/<uuid:report_id>/fhir/", reports.ReportFhir.as_view(), name="api-report-fhir"),
    path("reports/<uuid:report_id>/csv/", reports.ReportCsv.as_view(), name="api-report-csv"),
    path("reports/<uuid:report_id>/cells/", reports.ReportCells.as_view(), name="api-report-cells"),
    path("schema/", login_not_required(SpectacularAPIView.as_view(**public)), name="api-schema"),
    path(
        "docs/",
        login_not_required(SpectacularSwaggerSplitView.as_view(url_name="api-schema", **public)),
        name="api-docs",
    ),
]
