"""The pages as people meet them: what each shows, and what it never shows."""

import base64
import io
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from PIL import Image

from accounts.models import User
from classifier import heat_map, pipeline
from classifier.models import Case, CellImage, ModelVersion
from tests.factories import prediction_of
from tests.pictures import jpeg_of_cell

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]
Upload = Callable[..., SimpleUploadedFile]
FRAGMENT = {"X-Fragment": "1"}


# --- The result ------------------------------------------------------------------------------------------------


def test_result_shows_class_confidence_all_probabilities_and_what_the_cell_does(
    sign_in: SignIn, reader: User, make_image: MakeImage, model_version: ModelVersion
) -> None:
    image = make_image("classified")
    prediction_of(image, model_version)

    page = sign_in(reader).get(reverse("image", args=[image.pk])).content.decode()

    assert "Lymphocyte" in page
    assert "92.0 %" in page
    assert all(name in page for name in ("Neutrophil", "Eosinophil", "Basophil", "Monocyte", "Platelet"))
    assert "20-40 % of leukocytes" in page
    assert "AI suggestion - not verified. For trained reviewers; not for diagnosis." in page
    assert model_version.version in page


def test_unidentified_image_is_never_shown_with_a_class(
    sign_in: SignIn, reader: User, make_image: MakeImage, model_version: ModelVersion
) -> None:
    image = make_image("classified")
    reason = "The model is not sure. It could be Lymphocyte or Monocyte. Please classify."
    prediction_of(image, model_version, label="", abstained=True, reason_code="not_sure", reason=reason)

    page = sign_in(reader).get(reverse("image", args=[image.pk])).content.decode()

    assert reason in page
    assert "Unidentified" in page


def test_every_white_cell_of_a_field_is_drawn_and_listed_with_its_class(
    sign_in: SignIn, reader: User, make_image: MakeImage, model_version: ModelVersion
) -> None:
    image = make_image("classified")
    sure = {"box": [10, 20, 60, 70], "label": "monocyte", "suggestion": "monocyte", "confidence": 0.97}
    doubted = {"box": [150, 2, 220, 40], "label": None, "suggestion": "basophil", "confidence": 0.4}
    found = [
        sure | {"reason": None, "reason_code": None},
        doubted | {"reason": "The model is not sure. It could be A or B.", "reason_code": "not_sure"},
    ]
    prediction_of(image, model_version, label="", abstained=True, reason="There are 2 white cells.", leukocytes=found)

    page = sign_in(reader).get(reverse("image", args=[image.pk])).content.decode()

    assert 'd="M10 20H60V70H10Z"' in page
    assert 'd="M150 2H220V40H150Z"' in page
    assert ">1 Monocyte</text>" in page
    assert ">2 ?</text>" in page
    assert "2 white cells found" in page
    assert "97.0 %" in page
    assert "The model is not sure. It could be A or B." in page


@pytest.mark.parametrize("box", [[0, 0, 90, 90], [150, 0, 224, 224], [0, 150, 90, 224], [150, 150, 224, 224]])
def test_caption_of_a_found_cell_stays_within_the_picture(
    box: list[int], make_image: MakeImage, model_version: ModelVersion
) -> None:
    from classifier.found_cells import caption_size, found_cells

    found = {"box": box, "label": None, "suggestion": None, "confidence": 0.5, "reason": "", "reason_code": "x"}
    prediction = prediction_of(make_image("classified"), model_version, leukocytes=[found])

    (cell,) = found_cells(prediction, 224, 224)
    assert caption_size(224, 224) <= cell.text_y <= 224
    assert (cell.text_x, cell.anchor) in {(box[0], "start"), (box[2], "end")}


@pytest.mark.parametrize(
    ("slug", "width", "expected"),
    [
        ("neutrophil", 300, "2 Neutrophil"),
        ("neutrophil", 40, "2 NEU"),
        ("immature_granulocyte", 100, "2 IG"),
        (None, 40, "2 ?"),
    ],
)
def test_caption_is_short_where_the_box_is_narrow(slug: str | None, width: int, expected: str) -> None:
    from classifier.found_cells import caption

    assert caption(2, slug, width, size=20) == expected


def test_failed_image_shows_the_sentence_and_can_be_queued_again(
    sign_in: SignIn, technologist: User, make_image: MakeImage
) -> None:
    image = make_image("failed")
    client = sign_in(technologist)

    assert "could not process this picture" in client.get(reverse("image", args=[image.pk])).content.decode()
    client.post(reverse("image-requeue", args=[image.pk]))

    image.refresh_from_db()
    assert (image.status, image.faults, image.failure_code) == ("queued", 0, "")


def test_same_picture_in_another_case_is_a_visible_warning(
    sign_in: SignIn, technologist: User, make_image: MakeImage
) -> None:
    from classifier import services

    content = jpeg_of_cell(5)
    other = services.open_case(actor=technologist, accession_number="A-2002")
    image = make_image(content=content)
    make_image(content=content, case=other)

    assert "A-2002" in sign_in(technologist).get(reverse("image", args=[image.pk])).content.decode()


def test_cards_are_given_for_what_is_visible_only(
    sign_in: SignIn, reader: User, stranger: User, make_image: MakeImage
) -> None:
    image = make_image()
    url = f"{reverse('image-cards')}?id={image.pk}"

    assert str(image.pk) in sign_in(reader).get(url).content.decode()
    assert str(image.pk) not in sign_in(stranger).get(url).content.decode()


def test_whole_way_from_drop_to_result(
    sign_in: SignIn, technologist: User, case: Case, smear: bytes, as_upload: Upload, model_version: ModelVersion
) -> None:
    client = sign_in(technologist)
    client.post(reverse("upload-to-case", args=[case.pk]), {"file": as_upload(smear)}, headers=FRAGMENT)
    pipeline.classify_queued()

    image = case.images.get()
    page = client.get(reverse("image", args=[image.pk])).content.decode()
    prediction = image.predictions.get()
    assert str(prediction).lower() in page.lower()


def test_heat_map_is_drawn_in_the_shape_of_the_picture(
    sign_in: SignIn, technologist: User, make_image: MakeImage, model_version: ModelVersion
) -> None:
    image = make_image("classified")
    prediction_of(image, model_version)

    response = sign_in(technologist).get(reverse("image-heat-map", args=[image.pk]))
    overlay = Image.open(io.BytesIO(response.content))
    assert overlay.mode == "RGBA"
    assert abs(overlay.width / overlay.height - image.width / image.height) < 0.02


def test_heat_map_is_hottest_where_its_values_are() -> None:
    values = [[0.0, 0.0], [0.0, 1.0]]

    overlay = Image.open(io.BytesIO(heat_map.draw(values, box=[100, 0, 200, 100], width=200, height=100)))

    opacity: Any = overlay.getchannel("A")
    assert opacity.getpixel((190, 90)) > 150
    assert opacity.getpixel((110, 10)) == 0
    assert opacity.getpixel((10, 90)) == 0


# --- Bytes -----------------------------------------------------------------------------------------------------


def test_picture_leaves_with_safe_headers_and_to_no_cache(sign_in: SignIn, reader: User, make_image: MakeImage) -> None:
    image = make_image()

    response = sign_in(reader).get(reverse("image-file", args=[image.pk]))

    assert b"".join(response) == Path(image.file.path).read_bytes()
    assert response["Content-Type"] == "image/jpeg"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert "no-store" in response["Cache-Control"]


def test_picture_that_is_gone_from_the_disk_is_a_404(sign_in: SignIn, reader: User, make_image: MakeImage) -> None:
    image = make_image()
    Path(image.file.path).unlink()

    assert sign_in(reader).get(reverse("image-file", args=[image.pk])).status_code == 404


def test_storage_never_gives_a_link(make_image: MakeImage) -> None:
    with pytest.raises(NotImplementedError):
        _ = make_image().file.url


# --- Cases -----------------------------------------------------------------------------------------------------


def test_case_is_opened_by_form(sign_in: SignIn, technologist: User) -> None:
    response = sign_in(technologist).post(reverse("case-open"), {"accession_number": "B-9", "specimen": "EDTA"})

    case = Case.objects.get(accession_number="B-9")
    assert response["Location"] == reverse("case", args=[case.pk])


def test_taken_number_is_said_on_the_form(sign_in: SignIn, technologist: User, case: Case) -> None:
    response = sign_in(technologist).post(reverse("case-open"), {"accession_number": case.accession_number})

    assert response.status_code == 400
    assert "already has a case with that accession number" in response.content.decode()


def test_search_opens_an_exact_match_and_lists_what_begins_alike(
    sign_in: SignIn, technologist: User, case: Case
) -> None:
    from classifier import services

    services.open_case(actor=technologist, accession_number="A-1001-B")
    client = sign_in(technologist)

    exact = client.post(reverse("case-search"), {"accession_number": "a-1001"})
    alike = client.post(reverse("case-search"), {"accession_number": "A-10"}).content.decode()

    assert exact["Location"] == reverse("case", args=[case.pk])
    assert "A-1001-B" in alike
    assert "A-1001<" in alike


def test_search_finds_nothing_of_another_laboratory(sign_in: SignIn, stranger: User, case: Case) -> None:
    page = sign_in(stranger).post(reverse("case-search"), {"accession_number": case.accession_number})

    assert page.status_code == 200
    assert str(case.pk) not in page.content.decode()


def test_accession_number_never_appears_in_an_address(sign_in: SignIn, reader: User, make_image: MakeImage) -> None:
    image = make_image("failed")
    client = sign_in(reader)

    for url in (reverse("home"), reverse("cases"), reverse("images"), reverse("case", args=[image.case_id])):
        page = client.get(url).content.decode()
        links = [part.split('"', 1)[0] for part in page.split('href="')[1:]]
        assert not any(image.case.accession_number in link for link in links)


@pytest.mark.parametrize(
    "cursor", ["garbage", "p=garbage", "p=99999-01-01", "p=0001-01-01T00:00:00%2B14:00", "p=2026-01-01%00"]
)
@pytest.mark.parametrize("page", ["cases", "images", "api-cases"])
def test_bad_cursor_is_a_404(sign_in: SignIn, reader: User, page: str, cursor: str) -> None:
    encoded = cursor if cursor == "garbage" else base64.b64encode(cursor.encode()).decode()

    assert sign_in(reader).get(reverse(page), {"cursor": encoded}).status_code == 404


def test_role_without_upload_gets_no_form_to_open_a_case(sign_in: SignIn, auditor: User) -> None:
    assert sign_in(auditor).get(reverse("case-open")).status_code == 403


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00+14:00", "9999-12-31T23:59-12:00", "1850-01-01T00:00", "2199-01-01T00:00"]
)
def test_implausible_time_of_collection_is_refused(sign_in: SignIn, technologist: User, moment: str) -> None:
    client = sign_in(technologist)

    response = client.post(reverse("case-open"), {"collected_at": moment})

    assert response.status_code == 400
    assert "before 1900" in response.content.decode()
    assert client.get(reverse("cases")).status_code == 200


def test_form_in_another_encoding_is_refused(db: None) -> None:
    kind = "multipart/form-data; boundary=b; charset=rot13"
    response = Client().generic("POST", reverse("account_login"), b"--b--", content_type=kind)

    assert response.status_code == 400
    assert "UTF-8" in response.content.decode()


def test_nothing_is_written_for_a_stranger_or_for_a_field_that_no_form_has(
    sign_in: SignIn, technologist: User, case: Case, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.core.files.uploadhandler import TemporaryFileUploadHandler

    written: list[int] = []
    monkeypatch.setattr(
        TemporaryFileUploadHandler, "receive_data_chunk", lambda _, data, start: written.append(len(data))
    )
    content = SimpleUploadedFile("x.jpg", bytes(100_000))

    Client(enforce_csrf_checks=True).post(reverse("account_login"), {"file": content})
    content.seek(0)
    sign_in(technologist).post(reverse("upload-to-case", args=[case.pk]), {"other": content})
    assert written == []

    content.seek(0)
    sign_in(technologist).post(reverse("upload-to-case", args=[case.pk]), {"file": content})
    assert sum(written) == 100_000


def test_picture_is_not_added_to_a_released_case(
    sign_in: SignIn, technologist: User, case: Case, smear: bytes, as_upload: Upload
) -> None:
    Case.objects.filter(pk=case.pk).update(status="released")

    response = sign_in(technologist).post(
        reverse("upload-to-case", args=[case.pk]), {"file": as_upload(smear)}, headers=FRAGMENT
    )

    assert response.status_code == 409
    assert not case.images.exists()


@pytest.mark.parametrize("is_gone", [True, False])
@pytest.mark.parametrize("code", ["stored_file_missing", "stored_file_altered", "unreadable_image"])
def test_failed_image_is_mended_by_the_upload_that_its_sentence_asks_for(
    code: str,
    is_gone: bool,
    sign_in: SignIn,
    technologist: User,
    make_image: MakeImage,
    model_version: ModelVersion,
    settings: Any,
    django_capture_on_commit_callbacks: Any,
) -> None:
    content = jpeg_of_cell(77)
    image = make_image("failed", content=content, failure_code=code)
    if is_gone:
        Path(image.file.path).unlink()
    else:
        Path(image.file.path).write_bytes(b"lost")

    url = reverse("upload-to-case", args=[image.case_id])
    again = SimpleUploadedFile("again.jpg", content)
    with django_capture_on_commit_callbacks(execute=True):
        response = sign_in(technologist).post(url, {"file": again}, headers=FRAGMENT)
    pipeline.classify_queued()

    assert response.status_code == 200
    image.refresh_from_db()
    assert (image.status, image.failure_code) == ("classified", "")
    assert len(list(Path(settings.MEDIA_ROOT, "originals").rglob("*.jpg"))) == 1


def test_accession_number_in_other_letters_is_the_same_number(sign_in: SignIn, technologist: User, case: Case) -> None:
    response = sign_in(technologist).post(reverse("case-open"), {"accession_number": case.accession_number.lower()})

    assert response.status_code == 400
    assert response.context["form"].errors["accession_number"]
    assert Case.objects.count() == 1


@pytest.mark.parametrize(
    ("page", "back"),
    [("case-search", "cases"), ("upload-to-bench", "home"), ("upload-to-case", "case"), ("image-requeue", "image")],
)
def test_link_to_where_only_forms_go_leads_to_the_page_of_the_form(
    page: str, back: str, sign_in: SignIn, technologist: User, make_image: MakeImage
) -> None:
    image = make_image()
    about = {"upload-to-case": [image.case_id], "image-requeue": [image.pk]}.get(page, [])

    response = sign_in(technologist).get(reverse(page, args=about))

    assert response["Location"] == reverse(back, args=about)


def test_history_is_paged_newest_first_without_gaps_or_repeats(
    sign_in: SignIn, reader: User, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("classifier.views.images.IMAGES_ON_PAGE", 3)
    images = [make_image("failed") for _ in range(8)]
    now = timezone.now()
    for place, image in enumerate(images):
        CellImage.objects.filter(pk=image.pk).update(uploaded_at=now + timedelta(seconds=place))
    client, query, seen = sign_in(reader), "", []

    while query is not None:
        page = client.get(reverse("images") + query).context["page"]
        seen += [image.pk for image in page["rows"]]
        query = page["older"]

    assert seen == [image.pk for image in reversed(images)]


@pytest.mark.parametrize("page", ["home", "cases", "images", "case"])
@pytest.mark.parametrize("count", [2, 15])
def test_number_of_queries_does_not_grow_with_the_rows(
    page: str,
    count: int,
    sign_in: SignIn,
    technologist: User,
    make_image: MakeImage,
    model_version: ModelVersion,
    django_assert_max_num_queries: Any,
) -> None:
    images = [make_image("classified") for _ in range(count)]
    for image in images:
        prediction_of(image, model_version)
    client = sign_in(technologist)
    url = reverse(page, args=[images[0].case_id] if page == "case" else [])

    with django_assert_max_num_queries(13):
        assert client.get(url).status_code == 200
