"""A client that is lost while it sends gets, if it still listens, a sentence and a code, and nothing is kept."""

from collections.abc import Callable
from typing import Any

from django.test import Client
from rest_framework.test import APIClient

from accounts.models import User
from classifier.models import Case, CellImage

MULTIPART = "multipart/form-data; boundary=X"


class LostConnection:
    """The input of a request whose client went away, or was too slow."""

    def read(self, *_: int) -> bytes:
        raise ConnectionResetError

    readline = read


LOST: dict[str, Any] = {"wsgi.input": LostConnection()}


def test_broken_off_upload_to_the_api_is_a_problem_with_a_code(
    api: Callable[..., APIClient], technologist: User, case: Case
) -> None:
    client = api(technologist)

    answer = client.generic("POST", f"/api/v1/cases/{case.pk}/images/", "x" * 9, MULTIPART, **LOST)

    assert (answer.status_code, answer.json()["code"]) == (408, "request_broken_off")
    assert not CellImage.objects.exists()


def test_broken_off_form_is_a_page_with_a_sentence(
    sign_in: Callable[[User], Client], technologist: User, case: Case
) -> None:
    client = sign_in(technologist)
    client.raise_request_exception = False

    answer = client.generic("POST", f"/cases/{case.pk}/images/", "x" * 9, MULTIPART, **LOST)

    assert answer.status_code == 408
    assert "broke off" in answer.content.decode()
    assert not CellImage.objects.exists()
