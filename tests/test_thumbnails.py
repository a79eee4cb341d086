"""Thumbnails: made once by the worker, never in the way of a result, and seen by nobody who may not see the image."""

import io
import os
import time
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from PIL import Image

from accounts.models import AuditEvent, User
from classifier import pipeline, services, stored_files, thumbnails
from classifier.models import Case, CellImage, ModelVersion
from classifier.retention_steps import remove_due_pictures
from classifier.storage import PrivateStorage
from tests.conftest import PASSWORD
from tests.factories import prediction_of
from tests.pictures import drawn_cell, encoded, jpeg_of_cell

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]


def stored(image: CellImage) -> Path:
    return Path(image.file.storage.path(thumbnails.path_of(image)))


def drawn_before(image: CellImage) -> Path:
    """The image's thumbnail as an earlier version left it: a WebP, and nothing else."""
    path = stored(image).with_suffix(".webp")
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn_cell(1).resize((96, 96)).save(path, "WEBP")
    stored(image).unlink(missing_ok=True)
    CellImage.objects.filter(pk=image.pk).update(has_thumbnail=True)
    image.refresh_from_db()
    return path


def all_files(settings: Any) -> set[Path]:
    return {path for path in Path(settings.MEDIA_ROOT).rglob("*") if path.is_file()}


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


@pytest.mark.parametrize("is_from_before", [True, False])
@pytest.mark.parametrize("is_gone", [True, False])
def test_image_that_gets_its_picture_back_leaves_no_thumbnail_behind(
    is_gone: bool,
    is_from_before: bool,
    thumbnail: CellImage,
    technologist: User,
    settings: Any,
    django_capture_on_commit_callbacks: Any,
) -> None:
    CellImage.objects.filter(pk=thumbnail.pk).update(status="failed", failure_code="stored_file_altered")
    before = drawn_before(thumbnail) if is_from_before else stored(thumbnail)
    if is_gone:
        Path(thumbnail.file.path).unlink()
    again = SimpleUploadedFile("again.jpg", jpeg_of_cell(3, (360, 363)))

    with django_capture_on_commit_callbacks(execute=True):
        image, is_new = services.add_image(actor=technologist, case=thumbnail.case, upload=again)

    assert (image, is_new, image.status) == (thumbnail, False, "queued")
    # Under a new name there is none until the worker draws it.
    assert image.has_thumbnail == before.exists() == is_gone
    assert stored(image).exists() == (is_gone and not is_from_before)
    pipeline.classify_queued()
    image.refresh_from_db()
    assert image.has_thumbnail
    assert all_files(settings) == {Path(image.file.path), stored(image)}


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


# --- Drawn by an earlier version -------------------------------------------------------------------------------


def test_thumbnail_of_an_earlier_version_is_shown_until_there_is_one_of_today(
    sign_in: SignIn, reader: User, thumbnail: CellImage, django_assert_max_num_queries: Any
) -> None:
    today, before = stored(thumbnail).read_bytes(), drawn_before(thumbnail)
    client, url = sign_in(reader), reverse("image-thumbnail", args=[thumbnail.pk])

    with django_assert_max_num_queries(3):
        shown = client.get(url)
    assert (shown["Content-Type"], b"".join(shown)) == ("image/webp", before.read_bytes())
    stored(thumbnail).write_bytes(today)
    shown = client.get(url)
    assert (shown["Content-Type"], b"".join(shown)) == ("image/jpeg", today)


def test_known_thumbnail_of_an_earlier_version_is_confirmed_without_a_look_at_the_storage(
    sign_in: SignIn, reader: User, thumbnail: CellImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn_before(thumbnail)
    client, url = sign_in(reader), reverse("image-thumbnail", args=[thumbnail.pk])
    etag = client.get(url)["ETag"]
    monkeypatch.setattr(PrivateStorage, "open", must_not_be_asked)

    assert client.get(url, headers={"If-None-Match": etag}).status_code == 304


def must_not_be_asked(*_: Any, **__: Any) -> None:
    raise AssertionError


def test_new_thumbnail_takes_the_place_of_the_earlier_one(
    thumbnail: CellImage, settings: Any, sign_in: SignIn, reader: User
) -> None:
    before = drawn_before(thumbnail)
    CellImage.objects.filter(pk=thumbnail.pk).update(status="queued", classified_at=None)
    etag = sign_in(reader).get(reverse("image-thumbnail", args=[thumbnail.pk]))["ETag"]

    pipeline.classify_queued()

    assert not before.exists()
    assert all_files(settings) == {Path(thumbnail.file.path), stored(thumbnail)}
    assert sign_in(reader).get(reverse("image-thumbnail", args=[thumbnail.pk]))["ETag"] != etag


def test_earlier_thumbnail_that_cannot_be_deleted_stops_nothing(
    thumbnail: CellImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn_before(thumbnail)

    def refused(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(PrivateStorage, "delete", refused)
    assert thumbnails.store(thumbnail, b"thumbnail")
    assert stored(thumbnail).read_bytes() == b"thumbnail"


def test_first_thumbnail_of_an_image_deletes_nothing(
    make_image: MakeImage, model_version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a bucket that would be one more request for every picture."""
    monkeypatch.setattr(PrivateStorage, "delete", must_not_be_asked)
    image = make_image()
    pipeline.classify_queued()

    image.refresh_from_db()
    assert (image.status, image.has_thumbnail) == ("classified", True)


@pytest.mark.parametrize("worker_dies", [False, True])
def test_rule_removes_the_thumbnail_of_an_earlier_version_with_the_picture(
    worker_dies: bool,
    make_image: MakeImage,
    case: Case,
    reader: User,
    lab_admin: User,
    settings: Any,
    django_capture_on_commit_callbacks: Any,
) -> None:
    cache.clear()
    image = make_image("reviewed")
    drawn_before(image)
    services.set_retention_rule(actor=lab_admin, keep_days=30, reason="Ours", seen=0)
    services.release_report(actor=reader, case=case, password=PASSWORD, reason="one cell")

    with django_capture_on_commit_callbacks(execute=not worker_dies):
        assert remove_due_pictures(timezone.now() + timedelta(days=31)) == 1

    assert bool(all_files(settings)) == worker_dies
    # The original may be gone, and the thumbnail still there.
    Path(image.file.path).unlink(missing_ok=True)
    assert stored_files.verify_files().left_behind == ([str(image.pk)] if worker_dies else [])
    stored_files.check_some()
    assert all_files(settings) == set()
    removed = AuditEvent.objects.filter(action="orphaned_files_removed")
    assert [event.facts["files"] for event in removed] == ([1] if worker_dies else [])


def test_thumbnail_of_an_earlier_version_is_neither_missed_nor_without_a_row(thumbnail: CellImage) -> None:
    before = drawn_before(thumbnail)
    hours_ago = time.time() - 2 * stored_files.ORPHAN_SECONDS
    for path in (before, Path(thumbnail.file.path)):
        os.utime(path, (hours_ago, hours_ago))

    found = stored_files.verify_files()
    assert (found.orphans, found.without_thumbnail, found.left_behind) == ([], [], [])
    before.unlink()
    assert stored_files.verify_files().without_thumbnail == [str(thumbnail.pk)]


def test_upgrade_keeps_the_thumbnails_of_before(thumbnail: CellImage) -> None:
    with connection.cursor() as cursor:
        cursor.execute(import_module("classifier.migrations.0009_scale").FILL[0])

    thumbnail.refresh_from_db()
    assert thumbnail.has_thumbnail
    assert thumbnail.laboratory_id == thumbnail.case.laboratory_id
