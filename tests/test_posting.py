"""A form belongs to the person who filled it in: nobody else's hand sends it, and one that was not stored says so."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from accounts.models import User
from classifier.models import Case, CellImage, ModelVersion, Review
from tests.factories import prediction_of
from tests.pictures import jpeg_of_cell

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]
FRAGMENT = {"X-Fragment": "1"}
OTHERS = ["reader", "stranger", "operator"]


@pytest.fixture
def lymphocyte(make_image: MakeImage, model_version: ModelVersion) -> CellImage:
    image = make_image("classified")
    prediction_of(image, model_version)
    return image


def picture() -> SimpleUploadedFile:
    return SimpleUploadedFile("cell.jpg", jpeg_of_cell(1))


@pytest.mark.parametrize("other", OTHERS)
def test_review_that_waited_is_told_apart_from_one_that_is_refused_when_another_signs_in(
    other: str, sign_in: SignIn, technologist: User, lymphocyte: CellImage, request: pytest.FixtureRequest
) -> None:
    """Also where that one must not even see the image: a script that reads 404 would throw the review away."""
    client = sign_in(request.getfixturevalue(other))
    said = {"verdict": "CONFIRMED", "previous_review": "", "reader": str(technologist.pk)}

    answer = client.post(reverse("image-review", args=[lymphocyte.pk]), said, headers=FRAGMENT)

    assert (answer.status_code, answer.json()["code"]) == (403, "another_reader")
    assert "Somebody else is signed in now" in answer.json()["message"]
    assert not Review.objects.exists()


@pytest.mark.parametrize("to", ["bench", "case"])
@pytest.mark.parametrize("other", OTHERS)
def test_picture_that_waited_is_not_uploaded_under_another_name(
    other: str, to: str, sign_in: SignIn, technologist: User, case: Case, request: pytest.FixtureRequest
) -> None:
    url = reverse("upload-to-bench") if to == "bench" else reverse("upload-to-case", args=[case.pk])
    client = sign_in(request.getfixturevalue(other))

    answer = client.post(url, {"reader": str(technologist.pk), "file": picture()}, headers=FRAGMENT)

    assert (answer.status_code, answer.json()["code"]) == (403, "another_reader")
    assert not CellImage.objects.exists()


def test_ones_own_form_is_taken(sign_in: SignIn, technologist: User, case: Case) -> None:
    url = reverse("upload-to-case", args=[case.pk])

    answer = sign_in(technologist).post(url, {"reader": str(technologist.pk), "file": picture()}, headers=FRAGMENT)

    assert answer.status_code == 202


def test_person_without_scripts_reads_why_nothing_was_stored(
    sign_in: SignIn, technologist: User, reader: User, lymphocyte: CellImage
) -> None:
    url = reverse("image-review", args=[lymphocyte.pk])
    form = sign_in(technologist).get(reverse("image", args=[lymphocyte.pk])).content.decode()
    assert f'name="reader" value="{technologist.pk}"' in form

    page = sign_in(reader).post(url, {"verdict": "CONFIRMED", "reader": str(technologist.pk)}, follow=True)

    assert "Somebody else is signed in now" in page.content.decode()
    assert not Review.objects.exists()


def test_form_that_met_the_sign_in_page_is_said_to_be_lost(
    technologist: User, lymphocyte: CellImage, client: Client
) -> None:
    url = reverse("image-review", args=[lymphocyte.pk])
    said: dict[str, Any] = {"final_label": "monocyte", "comment": "kidney-shaped nucleus"}
    assert reverse("account_login") in client.post(url, said)["Location"]
    client.force_login(technologist)

    page = client.get(url, follow=True)

    assert page.redirect_chain == [(reverse("image", args=[lymphocyte.pk]), 302)]
    assert "it was not stored. Please send it again." in page.content.decode()
