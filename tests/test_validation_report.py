"""Validation in a box: labelled pictures against the model, with limits, and nothing counted twice or by a review."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import User
from classifier import batch_steps, services
from classifier.binomial import limits
from classifier.kappa import kappa_of
from classifier.models import Batch, CellImage, ModelVersion
from classifier.validation_report import Validation, known_label, validation_of
from tests.factories import prediction_of
from tests.handing_in import checked
from tests.zips import cells

Api = Callable[..., APIClient]
SignIn = Callable[[User], Client]


def answered(batch: Batch, version: ModelVersion, said: list[str | None]) -> list[CellImage]:
    """Predictions in the order of the files; None: the model abstains."""
    images = list(CellImage.objects.filter(batch=batch).order_by("turn"))
    for image, label in zip(images, said, strict=False):
        CellImage.objects.filter(pk=image.pk).update(status="classified", classified_at=timezone.now())
        if label:
            prediction_of(image, version, label=label, suggestion=label, conformal_set=[label])
        else:
            prediction_of(image, version, label="", abstained=True, reason="not sure")
        image.refresh_from_db()
    return images


def validated(batch: Batch) -> Validation:
    validation = validation_of(batch)
    assert validation is not None
    return validation


@pytest.fixture
def batch(technologist: User) -> Batch:
    """Six labelled pictures, one labelled file that is none, one picture without a label, one twice."""
    files = cells(7)
    lines = ["neutrophil", "neutrophil", "Lymphocytes", "lymphocyte", "monocyte", "IG"]
    labels = "file,label\n" + "".join(f"cell-{at:04}.jpg,{label}\n" for at, label in enumerate(lines))
    labels += "bad.jpg,monocyte\ntwice.jpg,neutrophil\n"
    return checked(
        technologist,
        {"labels.csv": labels.encode(), **files, "bad.jpg": b"no picture", "twice.jpg": files["cell-0000.jpg"]},
    )


def test_right_wrong_withheld_failed_and_refused_stand_apart(batch: Batch, model_version: ModelVersion) -> None:
    images = answered(batch, model_version, ["neutrophil", "monocyte", "lymphocyte", None, "monocyte"])
    CellImage.objects.filter(pk=images[5].pk).update(status="failed", failure_code="prediction_failed")
    validation = validated(batch)
    assert (validation.labelled, validation.abstained, validation.failed, validation.refused) == (6, 1, 1, 1)
    assert validation.waiting == 0
    assert (validation.total.right, validation.total.answered) == (3, 4)
    assert (validation.total.low, validation.total.high) == limits(3, 4)
    assert validation.confusion == {
        "neutrophil": {"monocyte": 1, "neutrophil": 1},
        "lymphocyte": {"lymphocyte": 1},
        "monocyte": {"monocyte": 1},
    }
    per_label = {row.label: (row.n, row.answered, row.right) for row in validation.per_label}
    assert per_label == {
        "neutrophil": (2, 2, 1),
        "lymphocyte": (2, 1, 1),
        "monocyte": (1, 1, 1),
        "immature_granulocyte": (1, 0, 0),
    }


def test_what_waits_is_neither_right_nor_wrong(batch: Batch) -> None:
    validation = validated(batch)
    assert (validation.waiting, validation.total.answered, validation.kappa) == (6, 0, None)
    assert validation.as_json()["accuracy"] is None


def test_review_changes_nothing_and_a_void_image_leaves(
    batch: Batch, model_version: ModelVersion, reader: User
) -> None:
    images = answered(batch, model_version, ["monocyte", "neutrophil"])
    services.review_image(actor=reader, image=images[0], verdict="CORRECTED", final_label="neutrophil")
    assert (validated(batch).total.right, validated(batch).total.answered) == (1, 2)
    services.void_image(actor=reader, image=images[0], reason="wrong slide")
    assert (validated(batch).total.right, validated(batch).total.answered) == (1, 1)


def test_batch_without_labels_has_no_validation(technologist: User) -> None:
    assert validation_of(checked(technologist, cells(1))) is None


@pytest.mark.parametrize(
    ("label", "knows", "said"),
    [
        ("myelocyte", ["neutrophil", "immature_granulocyte"], "immature_granulocyte"),
        ("myelocyte", ["myelocyte", "immature_granulocyte"], "myelocyte"),
        ("band_neutrophil", ["neutrophil"], "neutrophil"),
        ("smudge_cell", ["neutrophil"], "smudge_cell"),
        ("myelocyte", [], "myelocyte"),
    ],
)
def test_label_is_pooled_only_where_the_model_does_not_tell_it_apart(label: str, knows: list[str], said: str) -> None:
    assert known_label(label, knows) == said


def test_kappa_of_the_textbook() -> None:
    """Two raters, 50 pictures: 20, 5, 10, 15 agree to 0.4 beyond chance (0.7 observed, 0.5 expected)."""
    kappa = kappa_of({"monocyte": {"monocyte": 20, "lymphocyte": 5}, "lymphocyte": {"monocyte": 10, "lymphocyte": 15}})
    assert kappa is not None
    assert kappa.value == pytest.approx(0.4)
    assert kappa.low == pytest.approx(0.1511, abs=2e-3)
    assert kappa.high == pytest.approx(0.6489, abs=2e-3)


def test_interval_of_kappa_is_that_of_resampling() -> None:
    """An independent way to the same width: the bootstrap's."""
    confusion = {
        "neutrophil": {"neutrophil": 80, "monocyte": 6, "lymphocyte": 2},
        "lymphocyte": {"lymphocyte": 50, "monocyte": 9},
        "monocyte": {"monocyte": 30, "lymphocyte": 8, "neutrophil": 5},
    }
    pairs = [(true, said) for true, counts in confusion.items() for said, n in counts.items() for _ in range(n)]
    chance = random.Random(5)
    values = []
    for _ in range(1500):
        drawn: dict[str, dict[str, int]] = {}
        for true, said in chance.choices(pairs, k=len(pairs)):
            counts = drawn.setdefault(true, {})
            counts[said] = counts.get(said, 0) + 1
        resampled = kappa_of(drawn)
        assert resampled is not None
        values.append(resampled.value)
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    kappa = kappa_of(confusion)
    assert kappa is not None
    assert (kappa.high - kappa.low) / 2 == pytest.approx(1.96 * deviation, rel=0.08)


@pytest.mark.parametrize("confusion", [{}, {"monocyte": {"monocyte": 40}}, {"monocyte": {"basophil": 1}}])
def test_kappa_says_nothing_where_it_means_nothing(confusion: dict[str, dict[str, int]]) -> None:
    assert kappa_of(confusion) is None


def test_perfect_agreement_of_few_pictures_is_one_and_not_certain() -> None:
    kappa = kappa_of({"monocyte": {"monocyte": 5}, "basophil": {"basophil": 5}})
    assert kappa is not None
    assert (kappa.value, kappa.high) == (1.0, 1.0)
    assert kappa.low == pytest.approx((limits(10, 10)[0] - 0.5) / 0.5)


def test_page_and_api_show_the_same_numbers(
    batch: Batch, model_version: ModelVersion, technologist: User, sign_in: SignIn, api: Api
) -> None:
    answered(batch, model_version, ["neutrophil", "monocyte", "lymphocyte", "lymphocyte", "monocyte", None])
    batch_steps.finish_batches()
    body: dict[str, Any] = api(technologist).get(f"/api/v1/batches/{batch.pk}/").json()["validation"]
    assert (body["right"], body["answered"], body["abstained"], body["refused"]) == (4, 5, 1, 1)
    assert body["accuracy"] == pytest.approx(0.8)
    assert [row["label"] for row in body["per_label"]] == [
        "neutrophil",
        "lymphocyte",
        "monocyte",
        "immature_granulocyte",
    ]
    assert set(body["kappa"]) == {"value", "low", "high"}
    page = sign_in(technologist).get(f"/batches/{batch.pk}/").content.decode()
    low, high = limits(4, 5)
    assert f"{100 * low:.1f} - {100 * high:.1f}" in page
    assert "4 of 5" in page
    assert "Confusion matrix" in page
    assert f"{body['kappa']['value']:.2f}" in page
