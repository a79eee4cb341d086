from django.contrib.auth.decorators import login_not_required
from django.urls import path

from classifier import model_views, views

urlpatterns = [
    path("", views.bench, name="home"),
    path("about/", login_not_required(model_views.about), name="about"),
    path("models/", model_views.model_list, name="models"),
    path("models/<uuid:version_id>/", model_views.model_detail, name="model"),
    path("models/<uuid:version_id>/manifest/", model_views.model_manifest, name="model-manifest"),
    path(
        "models/<uuid:version_id>/mistakes/<slug:data_set>/<int:number>/",
        model_views.model_mistake,
        name="model-mistake",
    ),
    path("queue/", views.queue_line, name="queue-line"),
    path("uploads/", views.upload_to_bench, name="upload-to-bench"),
    path("cases/", views.case_list, name="cases"),
    path("cases/search/", views.case_search, name="case-search"),
    path("cases/open/", views.case_open, name="case-open"),
    path("cases/<uuid:case_id>/", views.case_detail, name="case"),
    path("cases/<uuid:case_id>/images/", views.upload_to_case, name="upload-to-case"),
    path("images/", views.image_list, name="images"),
    path("images/cards/", views.image_cards, name="image-cards"),
    path("images/<uuid:image_id>/", views.image_detail, name="image"),
    path("images/<uuid:image_id>/file/", views.image_file, name="image-file"),
    path("images/<uuid:image_id>/heat-map/", views.image_heat_map, name="image-heat-map"),
    path("images/<uuid:image_id>/requeue/", views.image_requeue, name="image-requeue"),
]
