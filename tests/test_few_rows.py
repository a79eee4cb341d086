"""What hardly any row fits is found from its own side, and is what it would be without that."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import Laboratory, User
from classifier import few_rows, services
from classifier.admin.desk import DeskAdmin
from classifier.api.filters import images_by
from classifier.desk_filters import IMAGE_FILTERS, PREDICTION_FILTERS, REVIEW_FILTERS, DeskFilter
from classifier.few_rows import few, together
from classifier.models import CellImage, ModelVersion, Prediction, Review
from classifier.worklist import WorklistFilter, worklist
from tests.factories import prediction_of

MakeImage = Callable[..., CellImage]
ABSTAINED = {"label": "", "abstained": True, "reason_code": "not_sure", "reason": "?"}
KINDS = {"prediction": (Prediction, PREDICTION_FILTERS), "review": (Review, REVIEW_FILTERS),
         "image": (CellImage, IMAGE_FILTERS)}  # fmt: skip
FROM_THE_OTHER_SIDE = [
    pytest.param(model, each, id=f"{name}-{each.name}")
    for name, (model, filters) in KINDS.items()
    for each in filters
    if each.among
]


@pytest.fixture
def history(
    make_image: MakeImage, model_version: ModelVersion, reader: User, technologist: User, laboratory: Laboratory
) -> Laboratory:
    """One image of every kind that the filters tell apart; some changed their mind, some are void."""
    said: tuple[dict[str, Any], ...] = ({}, {"label": "monocyte"}, ABSTAINED)
    for about in said:
        for verdict, final in (("CORRECTED", "eosinophil"), ("UNUSABLE", ""), ("", "")):
            image = make_image("classified")
            prediction_of(image, model_version, **about)
            if verdict:
                services.review_image(actor=reader, image=image, verdict=verdict, final_label=final)
    images = CellImage.objects.order_by("-uploaded_at")
    changed, unread = images.filter(current_review__verdict="CORRECTED")[0], images.filter(current_review=None)[0]
    services.review_image(actor=technologist, image=changed, verdict="UNUSABLE")
    services.review_image(actor=technologist, image=changed, verdict="WITHDRAWN")
    services.review_image(actor=reader, image=unread, verdict="UNUSABLE")
    services.review_image(actor=reader, image=unread, verdict="CORRECTED", final_label="basophil")
    services.review_image(actor=reader, image=make_image("failed"), verdict="MANUAL", final_label="neutrophil")
    void = images.filter(current_review__verdict="UNUSABLE")[0]
    services.void_image(actor=reader, image=void, reason="another patient")
    case = services.open_case(actor=technologist, accession_number="A-7")
    prediction_of(make_image("classified", case=case, uploaded_by=reader), model_version)
    services.void_case(actor=reader, case=case, reason="another patient")
    return laboratory


@pytest.mark.parametrize(("model", "desk_filter"), FROM_THE_OTHER_SIDE)
def test_filter_finds_the_same_rows_from_the_other_side(
    history: Laboratory, model: Any, desk_filter: DeskFilter, reader: User, technologist: User
) -> None:
    assert desk_filter.among is not None
    rows = model._default_manager.filter(laboratory=history)
    narrowing = []
    for value, _ in desk_filter.choices(history):
        wanted = set(desk_filter.apply(rows, value))
        column, keys = desk_filter.among(history.pk, value)
        assert set(desk_filter.narrow(rows, value, history.pk)) == wanted, value
        # What is found from there holds all that fits, so nothing is lost.
        assert keys is None or wanted <= set(rows.filter(**{f"{column}__in": keys})), value
        narrowing.append(keys is not None)
    assert any(narrowing)


def test_where_many_rows_fit_the_list_is_read_as_it_is(
    history: Laboratory, monkeypatch: pytest.MonkeyPatch, reader: User
) -> None:
    monkeypatch.setattr(few_rows, "FEW", 0)

    assert few(Review.objects.filter(laboratory=history), "pk") is None
    assert few(Review.objects.none(), "pk") == []
    assert together([1], None) is None
    [final] = [each for each in REVIEW_FILTERS if each.name == "said"]
    rows = Review.objects.filter(laboratory=history)
    assert set(final.narrow(rows, "lymphocyte", history.pk)) == set(final.apply(rows, "lymphocyte"))


@pytest.mark.parametrize("enough", [0, 2000])
@pytest.mark.parametrize(
    "wanted",
    [{"cell_type": "eosinophil"}, {"cell_type": "lymphocyte"}, {"cell_type": "neutrophil"}, {"confidence_below": 0.95},
     {"confidence_below": 0.5}, {"cell_type": "monocyte", "confidence_below": 0.95}, {"cell_type": "basophil"}],
)  # fmt: skip
def test_worklist_finds_the_same_cases_however_rare_they_are(
    history: Laboratory, reader: User, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any], enough: int
) -> None:
    found = set(worklist(reader, WorklistFilter(**wanted)))
    monkeypatch.setattr(few_rows, "FEW", enough)

    assert set(worklist(reader, WorklistFilter(**wanted))) == found
    assert bool(found) == (wanted != {"confidence_below": 0.5})


@pytest.mark.parametrize(
    "given", [{"label": "eosinophil"}, {"label": "lymphocyte"}, {"label": "platelet"}, {"abstained": True},
              {"abstained": False}, {"label": "eosinophil", "status": "reviewed"}],
)  # fmt: skip
def test_api_finds_the_same_images_however_rare_they_are(
    history: Laboratory, reader: User, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    def found() -> set[UUID]:
        return {image.pk for image in images_by(CellImage.objects.visible_to(reader), given, history.pk)}

    rare = found()
    monkeypatch.setattr(few_rows, "FEW", 0)

    assert found() == rare
    assert bool(rare) == (given != {"label": "platelet"})


def test_list_of_the_desk_asks_from_the_other_side(
    history: Laboratory, sign_in: Callable[[User], Client], auditor: User, django_assert_num_queries: Any
) -> None:
    page = sign_in(auditor).get(reverse("admin:classifier_review_changelist"), {"said": "monocyte"})

    assert isinstance(page.context["cl"].model_admin, DeskAdmin)
    assert '"prediction_id" IN (' in str(page.context["cl"].queryset.query)
    assert {review.prediction.label for review in page.context["cl"].result_list} == {"monocyte"}
