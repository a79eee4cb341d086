"""Counting the images of cases: each once, as it stands now, in a fixed number of queries."""

from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import User
from classifier import services
from classifier.differential import Tally
from classifier.models import Case, CellImage, ModelVersion, Prediction
from classifier.tallies import count_of, tallies_of, tally_of
from tests.factories import prediction_of

MakeImage = Callable[..., CellImage]
Classified = Callable[..., CellImage]


@pytest.fixture
def classified(make_image: MakeImage, model_version: ModelVersion) -> Classified:
    """Images that the model has given a label, or, for an empty one, that it has left unidentified."""

    def make(label: str, **fields: Any) -> CellImage:
        image = make_image("classified", **fields)
        said: dict[str, Any] = {"label": label, "suggestion": label}
        if not label:
            said = {"label": "", "suggestion": "monocyte", "abstained": True, "reason": "not sure"}
        prediction_of(image, model_version, **said)
        return image

    return make


@pytest.fixture
def newer_version(model_version: ModelVersion) -> ModelVersion:
    return ModelVersion.objects.create(
        name=model_version.name,
        version="99.0.0",
        sha256="0" * 64,
        labels=model_version.labels,
        preprocessing_version="1",
    )


def test_case_without_images_counts_nothing(case: Case) -> None:
    assert tally_of(case) == Tally({}, {})


def test_every_image_is_counted_once_where_it_belongs(
    case: Case, classified: Classified, make_image: MakeImage, reader: User
) -> None:
    for label in ("neutrophil", "neutrophil", "lymphocyte", ""):
        classified(label)
    services.review_image(actor=reader, image=classified("eosinophil"), verdict="CONFIRMED")
    services.review_image(actor=reader, image=classified("eosinophil"), verdict="CORRECTED", final_label="basophil")
    services.review_image(actor=reader, image=classified(""), verdict="CORRECTED", final_label="monocyte")
    services.review_image(actor=reader, image=classified("platelet"), verdict="UNUSABLE")
    services.review_image(actor=reader, image=make_image("failed"), verdict="MANUAL", final_label="monocyte")
    for status in ("queued", "claimed", "failed"):
        make_image(status)

    tally = tally_of(case)

    assert tally == Tally(
        reviewed={"eosinophil": 1, "basophil": 1, "monocyte": 2},
        pre_classified={"neutrophil": 2, "lymphocyte": 1},
        unreviewed=3,
        unidentified=1,
        unusable=1,
        queued=2,
        failed=1,
    )
    assert tally.images == CellImage.objects.filter(case=case).count()


def test_newest_prediction_counts_and_the_older_one_does_not(
    case: Case, classified: Classified, newer_version: ModelVersion
) -> None:
    image = classified("neutrophil")
    prediction_of(image, newer_version, label="eosinophil", suggestion="eosinophil")

    assert tally_of(case).pre_classified == {"eosinophil": 1}
    assert image.latest_prediction is not None
    assert image.latest_prediction.label == "eosinophil"


def test_newer_model_that_abstains_takes_the_class_away(
    case: Case, classified: Classified, newer_version: ModelVersion
) -> None:
    prediction_of(classified("neutrophil"), newer_version, label="", abstained=True, reason="not sure")

    tally = tally_of(case)

    assert (tally.pre_classified, tally.unidentified, tally.unreviewed) == ({}, 1, 0)


def test_image_that_is_queued_again_is_only_queued(
    case: Case, classified: Classified, newer_version: ModelVersion, technologist: User
) -> None:
    image = classified("neutrophil")
    ModelVersion.objects.update(active=False)
    ModelVersion.objects.filter(pk=newer_version.pk).update(active=True)
    services.requeue_image(actor=technologist, image=image)

    assert tally_of(case) == Tally({}, {}, queued=1)


def test_withdrawn_review_gives_the_image_back_to_the_model(case: Case, classified: Classified, reader: User) -> None:
    image = classified("neutrophil")
    services.review_image(actor=reader, image=image, verdict="CORRECTED", final_label="basophil")
    services.review_image(actor=reader, image=image, verdict="WITHDRAWN")

    assert tally_of(case) == Tally({}, {"neutrophil": 1}, unreviewed=1)


def test_latest_review_counts(case: Case, classified: Classified, reader: User) -> None:
    image = classified("neutrophil")
    services.review_image(actor=reader, image=image, verdict="CORRECTED", final_label="basophil")
    services.review_image(actor=reader, image=image, verdict="CORRECTED", final_label="lymphocyte")

    assert tally_of(case).reviewed == {"lymphocyte": 1}


def test_void_image_counts_nowhere(case: Case, classified: Classified, make_image: MakeImage, reader: User) -> None:
    for image in (classified("neutrophil"), classified(""), make_image("failed"), make_image("reviewed")):
        services.void_image(actor=reader, image=image, reason="another patient")

    assert tally_of(case) == Tally({}, {})


def test_models_behind_the_pre_classified_cells_are_known(
    case: Case, classified: Classified, model_version: ModelVersion, newer_version: ModelVersion, reader: User
) -> None:
    """Neither that of a reviewed cell nor that of an older prediction is behind the count."""
    services.review_image(actor=reader, image=classified("monocyte"), verdict="CONFIRMED")
    prediction_of(classified("neutrophil"), newer_version, label="neutrophil")
    assert count_of(case).model_ids == {newer_version.pk}

    classified("neutrophil")
    assert count_of(case).model_ids == {model_version.pk, newer_version.pk}


def test_tallies_of_many_cases_are_those_of_each(
    case: Case, classified: Classified, make_image: MakeImage, technologist: User
) -> None:
    other = services.open_case(actor=technologist, accession_number="A-1002")
    empty = services.open_case(actor=technologist, accession_number="A-1003")
    classified("neutrophil")
    make_image("reviewed")
    classified("lymphocyte", case=other)
    classified("", case=other)

    assert tallies_of([case, other, empty]) == {each.pk: tally_of(each) for each in (case, other, empty)}
    assert tallies_of([case, other])[other.pk] == Tally({}, {"lymphocyte": 1}, unreviewed=1, unidentified=1)


def test_counting_costs_one_query_however_many_images_and_cases(
    case: Case, classified: Classified, technologist: User, django_assert_num_queries: Any
) -> None:
    other = services.open_case(actor=technologist, accession_number="A-1002")
    with django_assert_num_queries(1):
        tally_of(case)
    for label in ("neutrophil", "lymphocyte", "", "platelet"):
        classified(label)
        classified(label, case=other)
    with django_assert_num_queries(1):
        tally_of(case)
    with django_assert_num_queries(1):
        tallies_of([case, other])
    with django_assert_num_queries(0):
        tallies_of([])


def test_predictions_that_were_made_at_the_same_moment_count_once(
    case: Case, classified: Classified, newer_version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tie is broken as everywhere else: the card and the count show the same class."""
    image = classified("neutrophil")
    first = Prediction.objects.get(image=image)
    monkeypatch.setattr(timezone, "now", lambda: first.created_at)
    assert prediction_of(image, newer_version, label="eosinophil").created_at == first.created_at

    shown = CellImage.objects.with_predictions().get(pk=image.pk).latest_prediction
    assert shown is not None
    assert tally_of(case).pre_classified == {shown.label: 1}
