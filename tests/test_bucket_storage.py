"""Originals in a bucket, on a real object store: the same promises as on a disk, and what an outage costs (nothing)."""

import io
import os
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from accounts.models import User
from classifier import (
    batch_steps,
    bucket_storage,
    checks,
    drafts,
    export_steps,
    pipeline,
    services,
    stored_files,
    tasks,
)
from classifier.bucket_storage import BucketStorage
from classifier.errors import StorageUnavailable
from classifier.models import Batch, Case, CellImage, Export, ModelVersion
from classifier.storage import private_files, unstored_on_failure
from hematovision import health
from hematovision.backup.errors import BackupRefused
from hematovision.backup.restoring import restore
from hematovision.backup.writing import back_up
from tests.factories import reviewed
from tests.handing_in import check_all, submitted
from tests.object_store import ObjectStore, free_ports
from tests.zips import cells

MakeImage = Callable[..., CellImage]
CELLS = "originals/x/0b7ad3a8-9b3c-4a53-9f5e-6f0ac0f0a001.jpg"
REFUSED = f"http://127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
def files(in_a_bucket: ObjectStore) -> BucketStorage:
    found = private_files()
    assert isinstance(found, BucketStorage)
    return found


def names(files: BucketStorage) -> list[str]:
    return [file.name for file in files.files()]


def fetched(name: str) -> bytes:
    with private_files().open(name) as stored:
        content: bytes = stored.read()
    return content


def away(settings: Any, **options: str) -> None:
    """From now on nobody answers where the store was, or what `options` say."""
    place = settings.STORAGES["default"]
    options = options or {"endpoint_url": REFUSED}
    settings.STORAGES = {**settings.STORAGES, "default": {**place, "OPTIONS": {**place["OPTIONS"], **options}}}


# --- The files themselves ------------------------------------------------------------------------------------------
def test_no_link_leads_to_a_file_and_a_stranger_is_refused(files: BucketStorage, in_a_bucket: ObjectStore) -> None:
    name = files.save(CELLS, ContentFile(b"picture"))
    with pytest.raises(NotImplementedError):
        files.url(name)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{in_a_bucket.url}/{in_a_bucket.bucket}/{files.key(name)}")
    assert refused.value.code == 403
    assert fetched(name) == b"picture"


def test_name_that_is_taken_is_never_written_over_whoever_comes_at_the_same_moment(files: BucketStorage) -> None:
    start = threading.Barrier(6)

    def save(number: int) -> str:
        start.wait()
        return files.save(CELLS, ContentFile(b"picture %d" % number))

    with ThreadPoolExecutor(6) as threads:
        saved = list(threads.map(save, range(6)))
    assert len(set(saved)) == 6
    assert CELLS in saved
    assert [fetched(name) for name in saved] == [b"picture %d" % number for number in range(6)]


def test_thumbnail_takes_the_place_of_the_one_before(files: BucketStorage) -> None:
    files.replace("thumbnails/a.webp", b"old")
    files.replace("thumbnails/a.webp", b"new")
    assert fetched("thumbnails/a.webp") == b"new"


def test_missing_file_is_told_from_a_missing_bucket_and_a_store_that_is_away(
    files: BucketStorage, settings: Any
) -> None:
    for act in (files.open, files.size):
        with pytest.raises(FileNotFoundError):
            act("no-such.jpg")
    assert not files.exists("no-such.jpg")
    files.delete("no-such.jpg")

    away(settings, bucket="no-such-bucket")
    with pytest.raises(StorageUnavailable):
        private_files().open("no-such.jpg")
    away(settings, endpoint_url=REFUSED)
    away_now = private_files()
    for ask in (away_now.open, away_now.exists, away_now.delete):
        with pytest.raises(StorageUnavailable):
            ask("no-such.jpg")
    with pytest.raises(StorageUnavailable):
        list(private_files().files())


def test_large_file_is_read_in_blocks_from_wherever_somebody_reads(
    files: BucketStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_storage, "BLOCK", 1000)
    content = os.urandom(10_500)
    name = files.save("archive.zip", ContentFile(content))

    assert fetched(name) == content
    with files.open(name) as stored:
        assert (stored.size, stored.seekable()) == (len(content), True)
        for start, length in ((10_400, 200), (0, 10), (999, 3000), (5000, 1)):
            stored.seek(start)
            assert stored.read(length) == content[start : start + length]
    assert stored.closed
    assert stored.open().read() == content, "a file is opened again after it was closed"


def test_empty_file_comes_back_empty(files: BucketStorage) -> None:
    assert fetched(files.save("empty", ContentFile(b""))) == b""


def test_forked_process_makes_a_connection_of_its_own(files: BucketStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = files.client
    assert files.client is ours
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert files.client is not ours


@pytest.mark.django_db(transaction=True)
def test_row_that_is_taken_back_leaves_no_file(files: BucketStorage, technologist: User) -> None:
    def fail() -> None:
        with unstored_on_failure(), transaction.atomic():
            files.save(CELLS, ContentFile(b"picture"))
            raise IntegrityError

    with pytest.raises(IntegrityError):
        fail()
    assert names(files) == []


# --- The way of a picture ------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_picture_is_stored_classified_shown_and_hidden_from_strangers(
    files: BucketStorage,
    model_version: ModelVersion,
    technologist: User,
    stranger: User,
    case: Case,
    smear: bytes,
    as_upload: Any,
    api: Callable[..., APIClient],
    sign_in: Callable[[User], Client],
) -> None:
    uploaded = api(technologist).post(
        f"/api/v1/cases/{case.pk}/images/", {"file": as_upload(smear)}, format="multipart"
    )
    assert uploaded.status_code == 202
    assert pipeline.classify_queued() == 1

    image = CellImage.objects.get()
    assert (image.status, image.has_thumbnail) == ("classified", True)
    assert sorted(name.split("/")[0] for name in names(files)) == ["originals", "thumbnails"]
    for page in ("image-file", "image-thumbnail"):
        address = reverse(page, args=[image.pk])
        shown = sign_in(technologist).get(address)
        content = shown.getvalue()
        assert (shown.status_code, int(shown["Content-Length"])) == (200, len(content))
        assert sign_in(stranger).get(address).status_code == 404
    assert not (Path(os.environ["HEMATOVISION_VAR"]) / "media" / str(image.file.name)).exists()


@pytest.mark.django_db(transaction=True)
def test_archive_is_checked_from_the_bucket_block_by_block(
    files: BucketStorage, technologist: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_storage, "BLOCK", 4096)
    monkeypatch.setattr(batch_steps, "SLICE_SECONDS", -1.0)
    batch = submitted(technologist, cells(3))
    assert len(names(files)) == 1
    check_all()

    batch.refresh_from_db()
    assert (batch.members_total, batch.images.count(), bool(batch.archive)) == (3, 3, False)
    assert len(names(files)) == 3


@pytest.mark.django_db
def test_storage_is_compared_with_the_rows(files: BucketStorage, make_image: MakeImage, monkeypatch: Any) -> None:
    sound, missing, altered = make_image(), make_image(), make_image()
    files.delete(str(missing.file.name))
    files.replace(str(altered.file.name), fetched(str(sound.file.name)))
    files.save(CELLS, ContentFile(b"nobody's"))
    monkeypatch.setattr(stored_files, "ORPHAN_SECONDS", -60)

    found = stored_files.verify_files()

    assert (found.images, found.missing, found.altered) == (3, [str(missing.pk)], [str(altered.pk)])
    assert found.orphans == [CELLS]
    assert stored_files.remove_orphans(found) == 1
    assert CELLS not in names(files)
    assert stored_files.verify_files(sample=1).missing == [str(missing.pk)]


@pytest.mark.django_db(transaction=True)
def test_backup_of_a_bucket_is_restored_into_another_or_into_a_folder(
    files: BucketStorage, make_image: MakeImage, model_version: ModelVersion, tmp_path: Path, settings: Any
) -> None:
    settings.AUDIT_HEADS_FILE = tmp_path / "heads.jsonl"
    stored = {name: fetched(name) for name in (str(make_image().file.name), str(make_image().file.name))}
    manifest = back_up(tmp_path / "backup", io.StringIO())
    assert manifest.unsound == []

    call_command("flush", interactive=False, verbosity=0)
    with pytest.raises(BackupRefused) as refused:
        restore(tmp_path / "backup", io.StringIO())
    assert "files in the bucket already" in refused.value.message
    away(settings, prefix="another")
    restore(tmp_path / "backup", io.StringIO())
    assert {file.name: fetched(file.name) for file in private_files().files()} == stored
    for name in stored:
        private_files().delete(name)

    call_command("flush", interactive=False, verbosity=0)
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": "classifier.storage.PrivateStorage"}}
    restore(tmp_path / "backup", io.StringIO())
    assert {file.name: fetched(file.name) for file in private_files().files()} == stored


# --- Exports, which grow -------------------------------------------------------------------------------------------
def export_in_slices(make_image: MakeImage, reader: User, auditor: User, monkeypatch: pytest.MonkeyPatch) -> Export:
    """A de-identified export of three pictures, of which every slice takes one."""
    for _ in range(3):
        reviewed(make_image(), by=reader)
    monkeypatch.setattr(export_steps, "SLICE_SECONDS", -1.0)
    return services.request_export(actor=auditor, kind="de_identified", filters={})


@pytest.fixture
def waiting(
    files: BucketStorage, make_image: MakeImage, reader: User, auditor: User, monkeypatch: pytest.MonkeyPatch
) -> Export:
    return export_in_slices(make_image, reader, auditor, monkeypatch)


def assert_whole(export: Export) -> None:
    export.refresh_from_db()
    archive = zipfile.ZipFile(io.BytesIO(fetched(str(export.file.name))))
    assert (archive.testzip(), len(archive.namelist()), export.rows_written) == (None, 5, 3)
    assert export.bytes_written == private_files().size(str(export.file.name))


@pytest.mark.django_db
def test_workers_on_different_machines_write_one_export_in_turns(
    waiting: Export, files: BucketStorage, settings: Any, tmp_path: Path, auditor: User
) -> None:
    turns = 0
    while Export.objects.get(pk=waiting.pk).finished_at is None:
        settings.VAR_DIR = tmp_path / f"machine {turns % 2}"
        export_steps.continue_export()
        turns += 1
        assert turns < 10
    assert turns >= 4
    assert_whole(waiting)
    assert [name for name in names(files) if name.startswith("exports/")] == [waiting.file.name]
    assert list((tmp_path / f"machine {(turns - 1) % 2}" / "drafts").iterdir()) == []


@pytest.mark.django_db
def test_parts_of_an_export_are_no_orphans_and_go_with_it(
    waiting: Export, files: BucketStorage, monkeypatch: pytest.MonkeyPatch, auditor: User
) -> None:
    export_steps.continue_export()
    monkeypatch.setattr(stored_files, "ORPHAN_SECONDS", -60)
    monkeypatch.setattr(export_steps, "ORPHAN_SECONDS", -60)
    assert any(drafts.PART in name for name in names(files))
    assert list(stored_files.orphans()) == []
    assert export_steps.remove_orphans() == 0

    waiting.refresh_from_db()
    services.withdraw_export(actor=auditor, export=waiting)
    export_steps.sweep_exports()
    assert [name for name in names(files) if name.startswith("exports/")] == []


@pytest.mark.django_db
def test_slice_that_the_store_did_not_take_is_written_again(
    waiting: Export, files: BucketStorage, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_steps.continue_export()
    good = settings.STORAGES
    for _ in range(5):
        away(settings)
        export_steps.continue_export()
        settings.STORAGES = good
    # The part was stored, and what the row says was not: the next slice comes out longer.
    waiting.refresh_from_db()
    files.replace(
        f"{waiting.file.name}{drafts.PART}{waiting.bytes_written:015d}-{waiting.bytes_written + 5:015d}", b"x" * 5
    )
    while Export.objects.get(pk=waiting.pk).finished_at is None:
        export_steps.continue_export()
    assert_whole(waiting)
    assert waiting.failure_code == ""


# --- An outage -----------------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_upload_during_an_outage_is_told_to_come_again_and_leaves_nothing(
    in_a_bucket: ObjectStore, settings: Any, technologist: User, case: Case, smear: bytes, as_upload: Any, api: Any
) -> None:
    away(settings)
    refused = api(technologist).post(f"/api/v1/cases/{case.pk}/images/", {"file": as_upload(smear)}, format="multipart")
    assert (refused.status_code, refused["Retry-After"], refused.json()["code"]) == (503, "5", "storage_unavailable")
    assert not CellImage.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_outage_costs_no_picture_a_try_and_no_archive_a_file(
    in_a_bucket: ObjectStore, settings: Any, technologist: User, make_image: MakeImage, model_version: ModelVersion
) -> None:
    image, batch = make_image(), submitted(technologist, cells(2))
    good = settings.STORAGES
    away(settings)
    for _ in range(4):
        with pytest.raises(StorageUnavailable):
            pipeline.classify_queued()
        assert batch_steps.check_archives() == 0
    image.refresh_from_db()
    batch.refresh_from_db()
    assert (image.status, image.attempts, image.faults) == ("queued", 0, 0)
    assert (batch.checked_at, batch.check_faults, batch.claim_token) == (None, 0, None)

    settings.STORAGES = good
    while tasks.classify_queued():
        pass
    assert set(CellImage.objects.values_list("status", flat=True)) == {"classified"}
    assert Batch.objects.get().members.filter(code="").count() == 2


@pytest.mark.django_db
def test_page_during_an_outage_says_so(
    in_a_bucket: ObjectStore, settings: Any, technologist: User, make_image: MakeImage, sign_in: Any
) -> None:
    image = make_image()
    away(settings)
    client = sign_in(technologist)
    client.raise_request_exception = False
    answer = client.get(reverse("image-file", args=[image.pk]))
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert b"does not answer" in answer.content
    with pytest.raises(CommandError) as failed:
        call_command("verify_storage", stdout=io.StringIO())
    assert failed.value.returncode == 2


# --- Said at the start, and by /readyz -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, None),
        ({"bucket": "no-such-bucket"}, "bucket_missing"),
        ({"secret_key": "not the key"}, "bucket_refused"),
        ({"endpoint_url": REFUSED}, "storage_unavailable"),
    ],
)
def test_readiness_tells_what_is_wrong_with_the_bucket(
    in_a_bucket: ObjectStore, settings: Any, options: dict[str, str], code: str | None
) -> None:
    if options:
        away(settings, **options)
    assert health.media() == code
    assert health.disk() is None
    assert [error.id for error in checks.bucket_keeps_what_it_is_given()] == (["classifier.E008"] if code else [])


def test_readiness_asks_the_store_once_in_ten_seconds(files: BucketStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(files, "looked_at", lambda: asked.append(time.monotonic()))
    for _ in range(5):
        health.media()
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"secret_key": ""}, "classifier.E005"),
        ({"addressing": "host"}, "classifier.E006"),
        ({"endpoint_url": "minio:9000"}, "classifier.E007"),
    ],
)
def test_setting_that_cannot_be_meant_stops_the_start(
    in_a_bucket: ObjectStore, settings: Any, options: dict[str, str], found: str
) -> None:
    assert checks.bucket_settings_fit() == []
    away(settings, **options)
    assert [error.id for error in checks.bucket_settings_fit()] == [found]


def test_store_that_writes_over_files_is_refused_at_the_start(
    files: BucketStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older store takes the condition for no condition."""
    put = files.put
    monkeypatch.setattr(files, "put", lambda name, content, **condition: put(name, content))
    assert [error.id for error in checks.bucket_keeps_what_it_is_given()] == ["classifier.E010"]
