"""Uploading by the pages: each file has its own outcome, and a bad one never spoils a good one."""

import uuid
from collections.abc import Callable

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from accounts.models import User
from classifier.models import Case, CellImage
from tests.pictures import jpeg_of_cell

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]
Upload = Callable[..., SimpleUploadedFile]
FRAGMENT = {"X-Fragment": "1"}


def test_picture_dropped_on_the_bench_opens_a_quick_case(
    sign_in: SignIn, technologist: User, smear: bytes, as_upload: Upload
) -> None:
    drop = uuid.uuid4()

    response = sign_in(technologist).post(
        reverse("upload-to-bench"), {"file": as_upload(smear), "quick_case_id": str(drop)}, headers=FRAGMENT
    )

    assert response.status_code == 202
    image = CellImage.objects.get()
    assert image.case_id == drop
    assert image.case.accession_number.startswith("Q")
    assert str(image.pk) in response.content.decode()


def test_pictures_of_one_drop_share_one_case(sign_in: SignIn, technologist: User, as_upload: Upload) -> None:
    client, drop = sign_in(technologist), str(uuid.uuid4())

    for seed in range(3):
        client.post(
            reverse("upload-to-bench"), {"file": as_upload(jpeg_of_cell(seed)), "quick_case_id": drop}, headers=FRAGMENT
        )

    assert Case.objects.get().images.count() == 3


def test_drop_with_only_a_bad_file_opens_no_case(sign_in: SignIn, technologist: User, as_upload: Upload) -> None:
    response = sign_in(technologist).post(
        reverse("upload-to-bench"),
        {"file": as_upload(b"no picture"), "quick_case_id": str(uuid.uuid4())},
        headers=FRAGMENT,
    )

    assert response.status_code == 400
    assert "This is not a picture" in response.content.decode()
    assert not Case.objects.exists()


def test_quick_case_id_of_another_laboratory_reaches_nothing_and_tells_nothing(
    sign_in: SignIn, stranger: User, case: Case, smear: bytes, as_upload: Upload
) -> None:
    response = sign_in(stranger).post(
        reverse("upload-to-bench"), {"file": as_upload(smear), "quick_case_id": str(case.pk)}, headers=FRAGMENT
    )

    assert response.status_code == 202
    assert not case.images.exists()
    assert CellImage.objects.get().case.laboratory == stranger.laboratory


def test_plain_form_sends_many_files_and_each_has_its_own_outcome(
    sign_in: SignIn, technologist: User, case: Case, as_upload: Upload
) -> None:
    files = [as_upload(jpeg_of_cell(1), "good.jpg"), as_upload(b"text", "bad.jpg"), as_upload(b"", "empty.jpg")]

    response = sign_in(technologist).post(reverse("upload-to-case", args=[case.pk]), {"file": files})

    page = response.content.decode()
    assert response.status_code == 202
    assert case.images.count() == 1
    assert all(name in page for name in ("good.jpg", "bad.jpg", "empty.jpg"))
    assert "The file is empty" in page


def test_no_file_is_said_in_words(sign_in: SignIn, technologist: User, case: Case) -> None:
    response = sign_in(technologist).post(reverse("upload-to-case", args=[case.pk]))

    assert response.status_code == 400
    assert "No file was chosen" in response.content.decode()


def test_thousand_files_in_one_form_are_refused_in_words(
    sign_in: SignIn, technologist: User, case: Case, as_upload: Upload
) -> None:
    files = [as_upload(b"x") for _ in range(1000)]

    response = sign_in(technologist).post(reverse("upload-to-case", args=[case.pk]), {"file": files})

    assert response.status_code == 400
    assert "at most 200" in response.content.decode()


def test_role_without_upload_is_told_so(
    sign_in: SignIn, auditor: User, case: Case, smear: bytes, as_upload: Upload
) -> None:
    response = sign_in(auditor).post(
        reverse("upload-to-case", args=[case.pk]), {"file": as_upload(smear)}, headers=FRAGMENT
    )

    assert response.status_code == 403
    assert not case.images.exists()


def test_bench_says_why_nothing_moves(sign_in: SignIn, technologist: User) -> None:
    page = sign_in(technologist).get(reverse("home")).content.decode()

    assert "No model is active" in page
