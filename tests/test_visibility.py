"""Who may see what, and what somebody sees who may not, or when something goes wrong."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from accounts.models import User
from classifier import services, urls
from classifier.models import Case, CellImage, ModelVersion
from tests.conftest import PASSWORD
from tests.factories import prediction_of

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]
Upload = Callable[..., SimpleUploadedFile]
FRAGMENT = {"X-Fragment": "1"}


# --- Who may see what ------------------------------------------------------------------------------------------

# Every address of a case or an image, found in the URL conf, so that a new one can't be forgotten.
ABOUT_SOMETHING = {
    str(pattern.name): sorted(pattern.pattern.converters)
    for pattern in urls.urlpatterns
    if {"case_id", "image_id"} & set(pattern.pattern.converters)
}
OTHERS = {"version": 1, "kind": "pdf"}
OPEN_TO_ALL = {"about", "account_login", "account_reset_password", "healthz", "api-schema", "api-docs"}


@pytest.mark.parametrize("page", ABOUT_SOMETHING)
def test_stranger_gets_404_for_what_belongs_to_another_laboratory(
    page: str,
    sign_in: SignIn,
    stranger: User,
    reader: User,
    technologist: User,
    make_image: MakeImage,
    model_version: ModelVersion,
) -> None:
    image = make_image("classified")
    prediction_of(image, model_version)
    services.review_image(actor=technologist, image=image, verdict="CONFIRMED")
    services.release_report(actor=reader, case=image.case, password=PASSWORD, reason="one cell")
    ids = {"case_id": image.case_id, "image_id": image.pk, **OTHERS}
    url = reverse(page, kwargs={name: ids[name] for name in ABOUT_SOMETHING[page]})
    client = sign_in(stranger)

    # An address for forms sends who comes by a link to the form's page, which is not there either.
    assert client.get(url, follow=True).status_code == 404
    assert client.post(url, {"file": SimpleUploadedFile("cell.jpg", b"cell")}).status_code in {404, 405}
    # The image of this test never went through the worker, so it has no thumbnail.
    assert sign_in(reader).get(url, follow=True).status_code == (404 if page == "image-thumbnail" else 200)


@pytest.mark.parametrize("actor", ["reader", "auditor", "lab_admin"])
@pytest.mark.parametrize("page", ["case", "image", "image-file", "image-heat-map", "home", "cases", "images"])
def test_every_role_of_the_laboratory_sees_its_cases_and_images(
    actor: str,
    page: str,
    sign_in: SignIn,
    make_image: MakeImage,
    model_version: ModelVersion,
    request: pytest.FixtureRequest,
) -> None:
    image = make_image("classified")
    prediction_of(image, model_version)
    about = [] if page in {"home", "cases", "images"} else [image.case_id if page == "case" else image.pk]

    assert sign_in(request.getfixturevalue(actor)).get(reverse(page, args=about)).status_code == 200


def test_platform_operator_sees_no_patient_data(sign_in: SignIn, operator: User, make_image: MakeImage) -> None:
    image = make_image()
    client = sign_in(operator)

    assert client.get(reverse("image", args=[image.pk])).status_code == 404
    assert client.get(reverse("image-file", args=[image.pk])).status_code == 404
    assert image.case.accession_number not in client.get(reverse("cases")).content.decode()


@pytest.mark.parametrize("page", ["home", "cases", "images", "queue-line", "case-open", "image-cards"])
def test_page_needs_a_user(page: str, db: None) -> None:
    response = Client().get(reverse(page))

    assert response.status_code == 302
    assert response["Location"].startswith(reverse("account_login"))


def test_signed_out_script_gets_a_plain_401(db: None) -> None:
    assert Client().get(reverse("queue-line"), headers=FRAGMENT).status_code == 401


@pytest.mark.parametrize("page", sorted(OPEN_TO_ALL))
def test_page_is_open_to_everybody(page: str, db: None) -> None:
    assert Client().get(reverse(page)).status_code == 200


def test_about_page_states_the_figures_of_the_model_in_use(model_version: ModelVersion) -> None:
    page = Client().get(reverse("about")).content.decode()

    assert str(model_version) in page
    for figures in model_version.metrics.values():
        assert f">{figures['n']:,}<".replace(",", "") in page.replace(",", "")
        assert f"{100 * figures['accuracy']:.1f} %" in page


# --- When something goes wrong ---------------------------------------------------------------------------------


def test_unknown_page_is_a_page_not_a_traceback(sign_in: SignIn, reader: User) -> None:
    response = sign_in(reader).get("/nowhere/")

    assert response.status_code == 404
    assert "There is nothing here" in response.content.decode()


def test_fault_of_ours_shows_a_calm_page_and_no_detail(
    sign_in: SignIn, reader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from classifier.views import bench

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(bench, "queue_context", broken)
    client = sign_in(reader)
    client.raise_request_exception = False
    response = client.get(reverse("home"))

    assert response.status_code == 500
    assert "secret detail" not in response.content.decode()
    assert "Nothing was lost" in response.content.decode()


def test_missing_csrf_token_is_said_in_words(technologist: User, case: Case) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(technologist)

    response = client.post(reverse("upload-to-case", args=[case.pk]))

    assert response.status_code == 403
    assert "Reload the page" in response.content.decode()


def test_every_page_is_served_under_a_strict_policy(sign_in: SignIn, reader: User) -> None:
    response = sign_in(reader).get(reverse("home"))

    policy = response["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert response["X-Frame-Options"] == "DENY"
    assert response["Referrer-Policy"] == "same-origin"
