"""Two clients at once, and what must not be held while a picture is looked at."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, connections
from rest_framework.test import APIClient

from accounts import service_accounts
from accounts.models import ApiToken, User
from accounts.tokens import TokenRefused, make_token
from classifier import uploads
from classifier.models import Case, CellImage
from tests.pictures import jpeg_of_cell

Api = Callable[..., APIClient]


@pytest.mark.django_db(transaction=True)
def test_picture_under_a_key_is_judged_once_and_outside_any_transaction(
    api: Api, technologist: User, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged, seen = uploads.judged, []

    def watched(upload: Any) -> Any:
        seen.append(connection.in_atomic_block)
        return judged(upload)

    monkeypatch.setattr(uploads, "judged", watched)
    client, url = api(technologist), f"/api/v1/cases/{case.pk}/images/"
    upload = SimpleUploadedFile("cell.jpg", jpeg_of_cell(1))

    assert client.post(url, {"file": upload}, format="multipart", headers={"Idempotency-Key": "k"}).status_code == 202
    assert seen == [False]
    assert CellImage.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_who_change_the_case_they_have_seen_one_is_told(api: Api, technologist: User, case: Case) -> None:
    url = f"/api/v1/cases/{case.pk}/"
    seen = api(technologist).get(url)["ETag"]
    clients, ready, answers = [api(technologist), api(technologist)], threading.Barrier(2), []

    def change(client: APIClient, specimen: str) -> None:
        try:
            ready.wait()
            answers.append(client.patch(url, {"specimen": specimen}, headers={"If-Match": seen}).status_code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=change, args=pair) for pair in zip(clients, ("EDTA", "citrate"), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [200, 412]


def test_account_that_was_switched_off_meanwhile_gets_no_token(service_account: User, lab_admin: User) -> None:
    seen_on = User.objects.get(pk=service_account.pk)
    service_accounts.switch_service_account(actor=lab_admin, account=service_account, on=False)

    with pytest.raises(TokenRefused):
        make_token(actor=lab_admin, user=seen_on, name="late", scopes=["read"], lifetime=timedelta(days=30))
    assert not ApiToken.objects.exists()
