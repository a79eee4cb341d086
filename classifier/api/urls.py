from django.contrib.auth.decorators import login_not_required
from django.urls import path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.permissions import AllowAny

from classifier.api import views

public = {"permission_classes": [AllowAny], "authentication_classes": []}

urlpatterns = [
    path("cases/", views.CaseList.as_view(), name="api-cases"),
    path("cases/<uuid:case_id>/", views.CaseDetail.as_view(), name="api-case"),
    path("cases/<uuid:case_id>/images/", views.CaseImages.as_view(), name="api-case-images"),
    path("images/<uuid:image_id>/", views.ImageDetail.as_view(), name="api-image"),
    path("images/<uuid:image_id>/requeue/", views.ImageRequeue.as_view(), name="api-image-requeue"),
    path("schema/", login_not_required(SpectacularAPIView.as_view(**public)), name="api-schema"),
    path(
        "docs/",
        login_not_required(SpectacularSwaggerSplitView.as_view(url_name="api-schema", **public)),
        name="api-docs",
    ),
]
