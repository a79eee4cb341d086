"""What keeps lists and totals as fast as they were: each row's laboratory, kept totals, and the indexes behind both."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.core.cache import cache
from django.db import connection
from django.db.models import Count, F, Q
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import User
from classifier import services
from classifier.audit_desk import images_per_status, versions_with_counts
from classifier.desk_filters import PREDICTION_FILTERS, REVIEW_FILTERS, narrowed
from classifier.kept_totals import IMAGES, KEPT, images_by_laboratory, images_by_status, predictions_by_version
from classifier.models import Case, CellImage, ModelVersion, Prediction, Report, Review, Void
from classifier.services.images import restore_image
from classifier.services.reports import release_report
from classifier.uploads import AcceptedUpload
from tests.conftest import PASSWORD
from tests.factories import prediction_of
from tests.pictures import jpeg_of_cell
from tests.signing import ready_to_sign

MakeImage = Callable[..., CellImage]
LONG_AGO = timedelta(days=3)


@pytest.fixture
def read(make_image: MakeImage, model_version: ModelVersion, reader: User) -> CellImage:
    """An image with a prediction, and a review of it."""
    image = make_image("classified")
    prediction_of(image, model_version)
    services.review_image(actor=reader, image=image, verdict="CONFIRMED")
    return image


def test_image_its_prediction_and_its_review_bear_the_laboratory_of_the_case(read: CellImage, case: Case) -> None:
    for row in (CellImage.objects.get(), Prediction.objects.get(), Review.objects.get()):
        assert row.laboratory_id == case.laboratory_id


def test_voids_and_reports_bear_the_laboratory_of_what_they_are_about(
    case: Case, make_image: MakeImage, model_version: ModelVersion, reader: User, technologist: User, stranger: User
) -> None:
    ready_to_sign(case, technologist=technologist, model_version=model_version)
    release_report(actor=reader, case=case, password=PASSWORD)
    case = services.open_case(actor=reader, accession_number="A-8")
    images = [make_image("classified", case=case) for _ in range(3)]
    services.void_image(actor=reader, image=images[0], reason="another patient")
    kept = [CellImage.objects.get(pk=image.pk) for image in images[1:]]
    with CaptureQueriesContext(connection) as captured:
        Void.objects.bulk_create(
            Void(image=image, reason="blurred", by=reader, laboratory=stranger.laboratory) for image in kept
        )
    services.void_case(actor=reader, case=case, reason="another patient")

    # The images bear it.
    assert len([query for query in captured if query["sql"].startswith(("SELECT", "INSERT"))]) == 1
    assert set(Void.objects.values_list("laboratory", flat=True)) == {case.laboratory_id}
    assert Void.objects.count() == 4
    assert Report.objects.get().laboratory_id == case.laboratory_id


def test_laboratory_of_a_row_is_never_the_one_that_somebody_gives(
    read: CellImage, case: Case, stranger: User, model_version: ModelVersion
) -> None:
    other = ModelVersion.objects.create(
        name="other", version="2", sha256="0" * 64, labels=["lymphocyte", "monocyte"], preprocessing_version="1"
    )
    one = prediction_of(read, other, laboratory=stranger.laboratory)
    one.pk, one.model_version = None, ModelVersion.objects.create(
        name="third", version="3", sha256="0" * 64, labels=["lymphocyte", "monocyte"], preprocessing_version="1"
    )  # fmt: skip
    Prediction.objects.bulk_create(
        [Prediction(**{f.attname: getattr(one, f.attname) for f in Prediction._meta.fields if not f.primary_key})]
    )

    assert set(Prediction.objects.values_list("laboratory", flat=True)) == {case.laboratory_id}
    assert Prediction.objects.count() == 3


@pytest.mark.parametrize(
    ("model", "first"),
    [
        (CellImage, ["laboratory", "-uploaded_at", "-id"]),
        (CellImage, ["laboratory", "status", "-uploaded_at", "-id"]),
        (Prediction, ["laboratory", "-created_at", "-id"]),
        (Review, ["laboratory", "-created_at", "-id"]),
        (Review, ["laboratory", "verdict", "-created_at", "-id"]),
        (Review, ["laboratory", "final_label", "-created_at", "-id"]),
        (Prediction, ["laboratory", "label", "-created_at", "-id"]),
        (Void, ["laboratory", "-at", "-id"]),
        (Report, ["laboratory", "-signed_at", "-id"]),
    ],
)
def test_index_begins_with_the_laboratory_and_goes_on_in_the_order_of_the_list(model: Any, first: list[str]) -> None:
    assert first in [list(index.fields)[: len(first)] for index in model._meta.indexes]


def test_images_that_somebody_sees_are_found_without_their_cases(reader: User) -> None:
    assert "classifier_case" not in str(CellImage.objects.visible_to(reader).query)


@pytest.mark.parametrize("name", ["cellimage", "prediction", "review", "void", "report"])
def test_list_of_the_desk_is_narrowed_by_the_rows_own_laboratory(auditor: User, name: str) -> None:
    request = RequestFactory().get("/")
    request.user = auditor
    [model_admin] = [each for model, each in admin.site._registry.items() if model._meta.model_name == name]

    where = str(model_admin.get_queryset(request).query).partition("WHERE")[2]

    assert f'"classifier_{name}"."laboratory_id" = ' in where


@pytest.mark.parametrize(
    ("model", "filters"), [(Prediction, PREDICTION_FILTERS), (Review, REVIEW_FILTERS)], ids=["predictions", "reviews"]
)
def test_void_is_asked_by_the_column_of_the_join(model: Any, filters: Any) -> None:
    statement = str(narrowed(model.objects.all(), filters, {"void": ["no"]}).query)

    # By the other column PostgreSQL expects next to no row, and reads the whole table.
    assert '"classifier_void"."image_id" IS NOT NULL' in statement
    assert '"classifier_void"."id"' not in statement


@pytest.mark.parametrize("reading", ["read", "agreed", "overridden", "identified", "unusable"])
def test_predictions_by_what_became_of_them_are_those_whose_counting_review_says_so(
    make_image: MakeImage, model_version: ModelVersion, reader: User, reading: str
) -> None:
    unsure = {"label": "", "abstained": True, "reason_code": "not_sure", "reason": "?"}
    for said, verdict, final in (
        ({}, "CONFIRMED", ""), ({}, "CORRECTED", "monocyte"), (unsure, "CORRECTED", "monocyte"), ({}, "UNUSABLE", ""),
        ({}, "", ""),
    ):  # fmt: skip
        image = make_image("classified")
        prediction_of(image, model_version, **said)
        if verdict:
            services.review_image(actor=reader, image=image, verdict=verdict, final_label=final)
    changed = CellImage.objects.get(current_review__verdict="CONFIRMED")
    services.review_image(actor=reader, image=changed, verdict="CORRECTED", final_label="basophil")
    services.review_image(actor=reader, image=changed, verdict="CONFIRMED", final_label="")
    review = "image__current_review__"
    classed = Q(**{f"{review}verdict__in": ["CONFIRMED", "CORRECTED"]})
    agreed = Q(**{f"{review}final_label": F("label")})
    meant = {
        "read": classed,
        "agreed": classed & agreed,
        "overridden": classed & ~agreed & ~Q(label=""),
        "identified": classed & Q(label=""),
        "unusable": Q(**{f"{review}verdict": "UNUSABLE"}),
    }[reading]

    found = narrowed(Prediction.objects.all(), PREDICTION_FILTERS, {"reading": [reading]})

    assert found.count() > 0
    assert set(found) == set(Prediction.objects.filter(meant))


def test_kept_totals_are_those_of_the_rows_whatever_their_age(
    read: CellImage, make_image: MakeImage, model_version: ModelVersion, stranger: User, case: Case
) -> None:
    make_image(case=services.open_case(actor=stranger), uploaded_by=stranger)
    for status in ("queued", "failed", "classified"):
        make_image(status)
    for age in (LONG_AGO, timedelta(0)):
        CellImage.objects.filter(pk=read.pk).update(uploaded_at=timezone.now() - age)
        cache.delete_many(KEPT)
        for _ in range(2):
            counted = CellImage.objects.values_list("laboratory").annotate(n=Count("pk"))
            assert {key: n for key, (n, _) in images_by_laboratory().items()} == {str(key): n for key, n in counted}
            by_status = dict(CellImage.objects.values_list("status").annotate(n=Count("pk")).order_by())
            assert {status: n for status, n in images_by_status().items() if n} == by_status
            assert dict(images_per_status(None)) == by_status
    assert predictions_by_version() == {str(model_version.pk): 1}
    assert (model_version, 1) in versions_with_counts()


def test_what_was_counted_is_not_read_again(make_image: MakeImage, django_assert_num_queries: Any) -> None:
    image = make_image()
    CellImage.objects.filter(pk=image.pk).update(uploaded_at=timezone.now() - LONG_AGO)
    images_by_laboratory()

    with django_assert_num_queries(2) as queries:
        again = images_by_laboratory()

    assert [n for n, _ in again.values()] == [1]
    assert '"uploaded_at" >= ' in queries.captured_queries[-1]["sql"]


def test_picture_that_comes_again_counts_with_its_new_bytes(
    make_image: MakeImage, technologist: User, django_capture_on_commit_callbacks: Any
) -> None:
    image = make_image("failed", failure_code="stored_file_missing")
    CellImage.objects.filter(pk=image.pk).update(uploaded_at=timezone.now() - LONG_AGO, stored_bytes=1)
    assert [size for _, size in images_by_laboratory().values()] == [1]
    accepted = AcceptedUpload(jpeg_of_cell(1), "jpg", 224, 224, "0" * 64, "1" * 64, image.pixels_sha256)

    with django_capture_on_commit_callbacks(execute=True):
        restore_image(actor=technologist, image=image, accepted=accepted)

    assert [size for _, size in images_by_laboratory().values()] == [len(accepted.content)]


def test_what_comes_after_an_hour_is_added_to_what_is_kept(make_image: MakeImage) -> None:
    image = make_image()
    images_by_laboratory()
    begun, begin, kept = cache.get(IMAGES)
    cache.set(IMAGES, (begun, begin - LONG_AGO, kept))
    CellImage.objects.filter(pk=image.pk).update(uploaded_at=timezone.now() - LONG_AGO + timedelta(hours=5))

    assert [n for n, _ in images_by_laboratory().values()] == [1]
    assert list(cache.get(IMAGES)[2].values()) == [[1, image.stored_bytes]]
    assert [n for n, _ in images_by_laboratory().values()] == [1]


def test_totals_of_a_clock_that_was_wrong_are_counted_anew(make_image: MakeImage) -> None:
    make_image()
    ahead = timezone.now() + LONG_AGO
    cache.set(IMAGES, (ahead, ahead, {"somebody": [7, 7]}))

    assert [n for n, _ in images_by_laboratory().values()] == [1]


def test_migrated_tables_have_the_column_filled(db: None) -> None:
    with connection.cursor() as cursor:
        for table in ("classifier_cellimage", "classifier_prediction", "classifier_review"):
            columns = {each.name: each for each in connection.introspection.get_table_description(cursor, table)}
            assert not columns["laboratory_id"].null_ok
