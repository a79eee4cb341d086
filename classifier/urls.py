from django.contrib.auth.decorators import login_not_required
from django.urls import path

from classifier.views import bench, cases, images, models, uploads

urlpatterns = [
    path("", bench.bench, name="home"),
    path("about/", login_not_required(models.about), name="about"),
    path("models/", models.model_list, name="models"),
    path("models/<uuid:version_id>/", models.model_detail, name="model"),
    path("models/<uuid:version_id>/manifest/", models.model_manifest, name="model-manifest"),
    path(
        "models/<uuid:version_id>/mistakes/<slug:data_set>/<int:number>/",
        models.model_mistake,
        name="model-mistake",
    ),
    path("queue/", bench.queue_line, name="queue-line"),
    path("uploads/", uploads.upload_to_bench, name="upload-to-bench"),
    path("cases/", cases.case_list, name="cases"),
    path("cases/search/", cases.case_search, name="case-search"),
    path("cases/open/", cases.case_open, name="case-open"),
    path("cases/<uuid:case_id>/", cases.case_detail, name="case"),
    path("cases/<uuid:case_id>/images/", uploads.upload_to_case, name="upload-to-case"),
    path("images/", images.image_list, name="images"),
    path("images/cards/", images.image_cards, name="image-cards"),
    path("images/<uuid:image_id>/", images.image_detail, name="image"),
    path("images/<uuid:image_id>/file/", images.image_file, name="image-file"),
    path("images/<uuid:image_id>/heat-map/", images.image_heat_map, name="image-heat-map"),
    path("images/<uuid:image_id>/requeue/", images.image_requeue, name="image-requeue"),
]
