"""Thumbnails: made once by the worker, never in the way of a result, and seen by nobody who may not see the image."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from PIL import Image

from accounts.models import User
from classifier import pipeline, services, thumbnails
from classifier.models import CellImage, ModelVersion
from tests.factories import prediction_of
from tests.pictures import drawn_cell, encoded, jpeg_of_cell

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]


def stored(image: CellImage) -> Path:
    return Path(image.file.storage.path(thumbnails.path_of(image)))


@pytest.fixture
def thumbnail(make_image: MakeImage, model_version: ModelVersion) -> CellImage:
    """An image that a worker has classified."""
    image = make_image(content=jpeg_of_cell(3, (360, 363)))
    pipeline.classify_queued()
    image.refresh_from_db()
    assert image.status == "classified"
    return image


# --- Made ------------------------------------------------------------------------------------------------------


def test_worker_makes_a_small_picture_under_a_name_of_ids(thumbnail: CellImage) -> None:
    path = stored(thumbnail)
    picture = Image.open(path)

    assert thumbnail.has_thumbnail
    assert picture.format == "JPEG"
    assert max(picture.size) == 192
    assert path.stat().st_size < 8000
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.name == f"{thumbnail.pk}.jpg"
    assert str(thumbnail.case.laboratory_id) in str(path)


@pytest.mark.parametrize("is_gone", [True, False])
def test_image_that_gets_its_picture_back_leaves_no_thumbnail_behind(
    is_gone: bool,
    thumbnail: CellImage,
    technologist: User,
    settings: Any,
    django_capture_on_commit_callbacks: Any,
) -> None:
    CellImage.objects.filter(pk=thumbnail.pk).update(status="failed", failure_code="stored_file_altered")
    if is_gone:
        Path(thumbnail.file.path).unlink()
    again = SimpleUploadedFile("again.jpg", jpeg_of_cell(3, (360, 363)))

    with django_capture_on_commit_callbacks(execute=True):
        image, is_new = services.add_image(actor=technologist, case=thumbnail.case, upload=again)

    assert (image, is_new, image.status) == (thumbnail, False, "queued")
    # Under a new name there is none until the worker draws it.
    assert image.has_thumbnail == stored(image).exists() == is_gone
    pipeline.classify_queued()
    image.refresh_from_db()
    assert image.has_thumbnail
    files = {path for path in Path(settings.MEDIA_ROOT).rglob("*") if path.is_file()}
    assert files == {Path(image.file.path), stored(image)}


def test_photograph_of_many_megapixels_is_decoded_only_once(
    make_image: MakeImage, model_version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded_again(*_: Any) -> bytes:
        raise AssertionError

    monkeypatch.setattr(thumbnails, "drawn", decoded_again)
    image = make_image(content=jpeg_of_cell(3, (2100, 2100)))
    pipeline.classify_queued()

    image.refresh_from_db()
    assert (image.status, image.has_thumbnail) == ("classified", True)


def test_field_of_several_cells_is_shown_whole(make_image: MakeImage, model_version: ModelVersion) -> None:
    field = Image.new("RGB", (640, 480), (232, 214, 208))
    for seed, place in ((1, (20, 40)), (2, (400, 240))):
        field.paste(drawn_cell(seed).resize((200, 200)), place)
    image = make_image(content=encoded(field, "JPEG", quality=92))
    pipeline.classify_queued()

    prediction = image.predictions.get()
    assert len(prediction.leukocytes) > 1
    assert Image.open(stored(image)).size == (192, 144)


def test_thumbnail_that_cannot_be_made_never_stops_a_classification(
    make_image: MakeImage, model_version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> bytes:
        raise OSError

    monkeypatch.setattr(thumbnails, "encoded", broken)
    image = make_image()
    pipeline.classify_queued()

    image.refresh_from_db()
    assert (image.status, image.has_thumbnail, image.faults) == ("classified", False, 0)


def test_full_disk_never_stops_a_classification(
    make_image: MakeImage, model_version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    image = make_image()
    monkeypatch.setattr("classifier.storage.os.replace", full)
    pipeline.classify_queued()

    image.refresh_from_db()
    assert (image.status, image.has_thumbnail) == ("classified", False)


def test_images_classified_before_get_theirs_by_the_sweep(make_image: MakeImage, model_version: ModelVersion) -> None:
    images = [make_image("classified", content=jpeg_of_cell(seed, (300, 200))) for seed in range(3)]
    for image in images:
        prediction_of(image, model_version, box=[50, 20, 170, 140])
    lost = make_image("classified")
    Path(lost.file.path).unlink()

    pipeline.sweep_expired_claims()

    for image in images:
        image.refresh_from_db()
        assert image.has_thumbnail
        assert Image.open(stored(image)).size == (120, 120)
    lost.refresh_from_db()
    assert not lost.has_thumbnail
    assert thumbnails.make_missing() == 0


def test_picture_that_cannot_be_drawn_is_tried_once_and_one_that_cannot_be_read_again(
    make_image: MakeImage, monkeypatch: Any
) -> None:
    monkeypatch.setattr(thumbnails, "not_drawable", set())
    broken, away = (make_image("classified") for _ in range(2))
    Path(broken.file.path).write_bytes(b"no picture")
    hidden = Path(away.file.path).with_suffix(".away")
    Path(away.file.path).rename(hidden)

    assert thumbnails.make_missing() == 0
    assert thumbnails.without_thumbnail() == [away]
    hidden.rename(Path(away.file.path))
    assert thumbnails.make_missing() == 1
    assert thumbnails.without_thumbnail() == []


def test_sweep_leaves_thumbnails_for_later_while_images_wait(
    make_image: MakeImage, model_version: ModelVersion
) -> None:
    before, waiting = make_image("classified"), make_image()

    pipeline.sweep_expired_claims()

    before.refresh_from_db()
    assert not before.has_thumbnail
    assert waiting.status == "queued"


def test_large_photograph_is_cut_where_the_cell_is() -> None:
    photograph = Image.new("RGB", (4000, 3000), (230, 230, 230))
    photograph.paste((10, 20, 200), (2000, 1000, 2600, 1600))

    cut = Image.open(io.BytesIO(thumbnails.drawn(encoded(photograph, "JPEG"), [2000, 1000, 2600, 1600])))

    assert cut.size == (192, 192)
    middle: Any = cut.convert("RGB").getpixel((96, 96))
    corner: Any = cut.convert("RGB").getpixel((4, 4))
    assert middle[2] > 150 > middle[0]
    assert corner[2] > 150 > corner[0]


# --- Seen ------------------------------------------------------------------------------------------------------


def test_thumbnail_is_served_to_who_may_see_it_and_asked_about_each_time(
    sign_in: SignIn, reader: User, thumbnail: CellImage, django_assert_max_num_queries: Any
) -> None:
    client = sign_in(reader)
    url = reverse("image-thumbnail", args=[thumbnail.pk])

    with django_assert_max_num_queries(3):
        response = client.get(url)

    assert b"".join(response) == stored(thumbnail).read_bytes()
    assert response["Content-Type"] == "image/jpeg"
    assert response["Cache-Control"] == "private, no-cache"
    assert response["X-Content-Type-Options"] == "nosniff"


def test_known_thumbnail_is_not_read_again(sign_in: SignIn, reader: User, thumbnail: CellImage) -> None:
    client = sign_in(reader)
    url = reverse("image-thumbnail", args=[thumbnail.pk])
    etag = client.get(url)["ETag"]
    stored(thumbnail).unlink()

    for known in (etag, f"W/{etag}", f'"older", {etag}'):
        assert client.get(url, headers={"If-None-Match": known}).status_code == 304
    assert client.get(url, headers={"If-None-Match": '"other"'}).status_code == 404


def test_new_classification_gives_the_thumbnail_a_new_name_for_browsers(
    sign_in: SignIn, reader: User, thumbnail: CellImage
) -> None:
    before = thumbnails.etag_of(thumbnail)
    CellImage.objects.filter(pk=thumbnail.pk).update(classified_at="2030-01-01T00:00:00Z")
    thumbnail.refresh_from_db()

    assert thumbnails.etag_of(thumbnail) != before


def test_stranger_gets_404_for_a_thumbnail_even_one_that_he_knows(
    sign_in: SignIn, reader: User, stranger: User, thumbnail: CellImage
) -> None:
    url = reverse("image-thumbnail", args=[thumbnail.pk])
    etag = sign_in(reader).get(url)["ETag"]

    assert sign_in(stranger).get(url).status_code == 404
    assert sign_in(stranger).get(url, headers={"If-None-Match": etag}).status_code == 404


def test_page_shows_the_original_where_there_is_no_thumbnail(
    sign_in: SignIn, reader: User, make_image: MakeImage
) -> None:
    image = make_image("failed")
    client = sign_in(reader)

    assert reverse("image-file", args=[image.pk]) in client.get(reverse("case", args=[image.case_id])).content.decode()
    assert client.get(reverse("image-thumbnail", args=[image.pk])).status_code == 404
