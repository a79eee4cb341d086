"""Who may see what, and what somebody sees who may not, or when something goes wrong."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import User
from classifier.models import Case, CellImage, ModelVersion

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]
FRAGMENT = {"X-Fragment": "1"}


# --- Who may see what (address by address and role by role: tests/test_isolation.py) ----------------------------
OPEN_TO_ALL = {"about", "account_login", "account_reset_password", "healthz", "api-schema", "api-docs"}


def test_platform_operator_sees_no_patient_data(sign_in: SignIn, operator: User, make_image: MakeImage) -> None:
    image = make_image()
    client = sign_in(operator)

    assert client.get(reverse("image", args=[image.pk])).status_code == 404
    assert client.get(reverse("image-file", args=[image.pk])).status_code == 404
    assert image.case.accession_number not in client.get(reverse("cases")).content.decode()


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
