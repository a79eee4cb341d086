"""Reviews over the API: the contract's shapes, and who may say what."""

from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse
from rest_framework.test import APIClient

from accounts.models import User
from classifier import services
from classifier.models import CellImage, ModelVersion, Review
from tests.factories import prediction_of

Api = Callable[..., APIClient]


@pytest.fixture
def lymphocyte(make_image: Callable[..., CellImage], model_version: ModelVersion) -> CellImage:
    """A cell that the model calls a lymphocyte."""
    image = make_image("classified")
    prediction_of(image, model_version)
    return image


def url(image: CellImage) -> str:
    return reverse("api-image-reviews", args=[image.pk])


@pytest.mark.parametrize("actor", ["technologist", "reader"])
def test_review_is_written_and_answered_in_the_shape_of_the_contract(
    actor: str, api: Api, lymphocyte: CellImage, request: pytest.FixtureRequest
) -> None:
    user = request.getfixturevalue(actor)

    response = api(user).post(url(lymphocyte), {"verdict": "CORRECTED", "final_label": "monocyte", "comment": "ok"})

    body = response.json()
    assert response.status_code == 201
    assert body["verdict"] == "CORRECTED"
    assert body["final_label"] == "monocyte"
    assert body["comment"] == "ok"
    assert body["reader"] == str(user)
    assert body["previous"] is None
    assert body["created_at"].endswith("Z")
    assert Review.objects.get().pk.hex == body["id"].replace("-", "")


def test_previous_review_left_out_compares_nothing_and_null_means_none(
    api: Api, technologist: User, reader: User, lymphocyte: CellImage
) -> None:
    services.review_image(actor=reader, image=lymphocyte, verdict="UNUSABLE")
    client = api(technologist)

    refused = client.post(url(lymphocyte), {"verdict": "CONFIRMED", "previous_review": None})
    accepted = client.post(url(lymphocyte), {"verdict": "CONFIRMED"})

    assert (refused.status_code, refused.json()["code"]) == (409, "review_changed")
    assert refused.json()["review"]["verdict"] == "UNUSABLE"
    assert refused.json()["review"]["reader"] == "Ruth Reyes"
    assert refused["Content-Type"] == "application/problem+json"
    assert accepted.status_code == 201


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"verdict": "GUESSED"}, "unknown_verdict"),
        ({"verdict": "CORRECTED"}, "final_label_missing"),
        ({"verdict": "CORRECTED", "final_label": "lymphocyte"}, "nothing_to_correct"),
        ({"verdict": "CORRECTED", "final_label": "blast"}, "unknown_cell_type"),
        ({"verdict": "MANUAL", "final_label": "monocyte"}, "not_failed"),
        ({"verdict": "WITHDRAWN"}, "nothing_to_withdraw"),
        ({}, "invalid_input"),
        ({"verdict": "CONFIRMED", "previous_review": "x"}, "invalid_input"),
    ],
)
def test_bad_body_is_refused_with_a_stable_code(
    body: dict[str, Any], code: str, api: Api, technologist: User, lymphocyte: CellImage
) -> None:
    response = api(technologist).post(url(lymphocyte), body)

    assert response.status_code == 400
    assert response.json()["code"] == code
    assert not Review.objects.exists()


def test_abstained_image_cannot_be_confirmed(
    api: Api, technologist: User, make_image: Callable[..., CellImage], model_version: ModelVersion
) -> None:
    image = make_image("classified")
    prediction_of(image, model_version, label="", abstained=True, reason="The model is not sure.")

    response = api(technologist).post(url(image), {"verdict": "CONFIRMED"})

    assert (response.status_code, response.json()["code"]) == (400, "nothing_to_confirm")


def test_history_is_the_newest_first_in_pages(
    api: Api, technologist: User, auditor: User, lymphocyte: CellImage, django_assert_max_num_queries: Any
) -> None:
    client = api(technologist)
    for verdict in ("CONFIRMED", "UNUSABLE", "WITHDRAWN"):
        client.post(url(lymphocyte), {"verdict": verdict})
    looker = api(auditor)

    with django_assert_max_num_queries(5):
        page = looker.get(url(lymphocyte), {"page_size": 2}).json()
    rest = looker.get(page["next"]).json()

    assert [review["verdict"] for review in page["results"] + rest["results"]] == ["WITHDRAWN", "UNUSABLE", "CONFIRMED"]
    assert page["results"][0]["previous"] == page["results"][1]["id"]
    assert rest["next"] is None


def test_stranger_gets_404(api: Api, stranger: User, lymphocyte: CellImage) -> None:
    client = api(stranger)

    assert client.get(url(lymphocyte)).status_code == 404
    assert client.post(url(lymphocyte), {"verdict": "CONFIRMED"}).status_code == 404


@pytest.mark.parametrize("actor", ["auditor", "lab_admin", "service_account"])
def test_who_may_only_look_reads_the_history_and_gets_403_for_a_review(
    actor: str, api: Api, lymphocyte: CellImage, request: pytest.FixtureRequest
) -> None:
    client = api(request.getfixturevalue(actor))

    assert client.get(url(lymphocyte)).status_code == 200
    assert client.post(url(lymphocyte), {"verdict": "CONFIRMED"}).status_code == 403


def test_token_without_the_scope_gets_403(api: Api, technologist: User, lymphocyte: CellImage) -> None:
    assert api(technologist, ("read",)).post(url(lymphocyte), {"verdict": "CONFIRMED"}).status_code == 403


def test_nobody_gets_401(api: Api, lymphocyte: CellImage) -> None:
    assert api(None).get(url(lymphocyte)).status_code == 401
