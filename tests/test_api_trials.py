"""Trials over the API: asking for one, following it, and what it came to."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import User
from classifier.models import Case, CellImage, ModelTrial, ModelVersion, TrialPrediction
from tests.factories import prediction_of

Api = Callable[..., APIClient]


@pytest.fixture
def other_version(model_version: ModelVersion) -> ModelVersion:
    """A version that is registered and not active; only its name is asked for here."""
    return ModelVersion.objects.create(
        name="other", version="0.0.1", sha256="0" * 64, labels=model_version.labels, preprocessing_version="1"
    )


@pytest.fixture
def cells(make_image: Callable[..., CellImage], model_version: ModelVersion) -> list[CellImage]:
    """Two images that count as neutrophils."""
    images = [make_image("classified") for _ in range(2)]
    for image in images:
        prediction_of(image, model_version, label="neutrophil")
    return images


def test_reader_asks_for_a_trial_and_follows_it(
    api: Api, reader: User, case: Case, cells: list[CellImage], other_version: ModelVersion
) -> None:
    client = api(reader)

    asked = client.post(f"/api/v1/cases/{case.pk}/trials/", {"model_version": str(other_version.pk)})
    assert asked.status_code == 202
    body = asked.json()
    assert asked["Location"] == body["url"]
    assert (body["state"], body["total"], body["tried"], body["outcome"]) == ("waiting", 2, 0, None)
    assert body["model"] == {"name": "other", "version": "0.0.1", "sha256": "0" * 64}
    again = client.post(f"/api/v1/cases/{case.pk}/trials/", {"model_version": str(other_version.pk)})
    assert again.json()["id"] == body["id"]

    said = {"confidence": 0.9, "conformal_set": ["monocyte"], "abstained": False}
    for image, label in zip(cells, ("neutrophil", "monocyte"), strict=True):
        TrialPrediction.objects.create(trial_id=body["id"], image=image, label=label, **said)
    ModelTrial.objects.update(finished_at=timezone.now())

    done = client.get(body["url"]).json()
    assert (done["state"], done["failure"], done["tried"]) == ("finished", None, 2)
    assert done["outcome"] == {
        "compared": 2,
        "changed": 1,
        "became_another": 1,
        "became_unidentified": 0,
        "became_identified": 0,
        "pairs": [
            {"before": "neutrophil", "after": "monocyte", "n": 1},
            {"before": "neutrophil", "after": "neutrophil", "n": 1},
        ],
        "reviewed": 0,
        "right_before": 0,
        "right_after": 0,
    }
    [listed] = client.get(f"/api/v1/cases/{case.pk}/trials/").json()["results"]
    assert listed == {name: done[name] for name in listed}


def test_trial_that_came_to_nothing_says_why(api: Api, reader: User, case: Case, other_version: ModelVersion) -> None:
    trial = ModelTrial.objects.create(
        case=case,
        model_version=other_version,
        requested_by=reader,
        finished_at=timezone.now(),
        failure_code="model_missing",
    )

    body = api(reader).get(f"/api/v1/trials/{trial.pk}/").json()

    assert (body["state"], body["failure"]["code"], body["outcome"]) == ("failed", "model_missing", None)
    assert body["failure"]["message"].startswith("The files of this model version are missing")


def test_what_can_not_be_tried_is_refused(
    api: Api, reader: User, case: Case, model_version: ModelVersion, other_version: ModelVersion
) -> None:
    client, url = api(reader), f"/api/v1/cases/{case.pk}/trials/"

    refusals = [
        client.post(url, body)
        for body in (
            {"model_version": str(model_version.pk)},
            {"model_version": str(other_version.pk)},
            {"model_version": str(uuid4())},
            {"model_version": "1.0"},
            {},
            {"model_version": str(other_version.pk), "activate": True},
        )
    ]

    codes = ["model_is_active", "nothing_to_try", "unknown_model_version", "invalid_input", "invalid_input"]
    assert [answer.json()["code"] for answer in refusals] == [*codes, "unknown_field"]
    assert {answer.status_code for answer in refusals} == {400}
    assert not ModelTrial.objects.exists()


@pytest.mark.parametrize(("role", "scope", "status"), [("reader", "release", 202), ("lab_admin", "admin", 202)])
def test_one_of_two_scopes_is_enough_and_reading_none_of_them(
    api: Api,
    case: Case,
    cells: list[CellImage],
    other_version: ModelVersion,
    request: Any,
    role: str,
    scope: str,
    status: int,
) -> None:
    user = request.getfixturevalue(role)
    url, body = f"/api/v1/cases/{case.pk}/trials/", {"model_version": str(other_version.pk)}

    assert api(user, ("read",)).post(url, body).status_code == 403
    assert api(user, (scope,)).post(url, body).status_code == status


def test_trial_of_another_laboratory_is_not_there(
    api: Api, reader: User, stranger: User, case: Case, other_version: ModelVersion
) -> None:
    trial = ModelTrial.objects.create(case=case, model_version=other_version, requested_by=reader)

    for url in (f"/api/v1/trials/{trial.pk}/", f"/api/v1/cases/{case.pk}/trials/"):
        assert api(stranger).get(url).status_code == 404
        assert api(reader).get(url).status_code == 200
    asked = api(stranger).post(f"/api/v1/cases/{case.pk}/trials/", {"model_version": str(other_version.pk)})
    assert asked.status_code == 404


def test_unknown_filters_of_trials_are_refused(api: Api, reader: User, case: Case) -> None:
    answer = api(reader).get(f"/api/v1/cases/{case.pk}/trials/?state=waiting")

    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_filter")
