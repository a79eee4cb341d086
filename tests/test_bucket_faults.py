"""A store that hangs, refuses one object, or answers twice; and what is left on a worker's disk or of a restore."""

import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.urls import reverse

from accounts.models import User
from classifier import bucket_storage, drafts, export_steps, model_trial, pipeline, stored_files
from classifier.bucket_storage import BucketStorage
from classifier.errors import StorageUnavailable
from classifier.models import CellImage, Export, ModelVersion
from classifier.storage import private_files
from hematovision.backup import restoring
from hematovision.backup.errors import BackupRefused
from hematovision.backup.writing import back_up
from tests.fake_store import FakeStore, fake_store
from tests.object_store import ObjectStore
from tests.test_bucket_storage import CELLS, REFUSED, assert_whole, away, export_in_slices

MakeImage = Callable[..., CellImage]


@pytest.fixture
def store(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStore]:
    """A store that does what the test says; it is waited for during half a second."""
    monkeypatch.setattr(bucket_storage, "READ_SECONDS", 0.5)
    settings.VAR_DIR = tmp_path / "var"
    backend = "classifier.bucket_storage.BucketStorage"
    with fake_store() as found:
        place = {"BACKEND": backend, "OPTIONS": found.options}
        settings.STORAGES = {**settings.STORAGES, "default": place}
        yield found


def states() -> set[tuple[str, int, int]]:
    return set(CellImage.objects.values_list("status", "attempts", "faults"))


# --- A store that hangs --------------------------------------------------------------------------------------------
def test_store_that_hangs_is_waited_for_once_and_well_within_the_time_of_a_task(
    settings: Any, in_a_bucket: ObjectStore
) -> None:
    # A picture is asked for, a probe is written, and a neighbour was asked for right before.
    longest = 3 * (bucket_storage.CONNECT_SECONDS + bucket_storage.READ_SECONDS)
    assert longest < settings.CELERY_TASK_TIME_LIMIT
    files = private_files()
    assert isinstance(files, BucketStorage)
    assert files.client.meta.config.retries["total_max_attempts"] == 1
    assert files.client.meta.config.read_timeout == bucket_storage.READ_SECONDS


@pytest.mark.django_db(transaction=True)
def test_claim_waits_for_a_store_that_hangs_once_and_not_for_each_image(
    store: FakeStore, make_image: MakeImage, model_version: ModelVersion, settings: Any
) -> None:
    for _ in range(8):
        make_image()
    store.fault = lambda method, name: "hang"
    with pytest.raises(StorageUnavailable):
        pipeline.classify_queued()
    assert states() == {("queued", 0, 0)}
    assert store.asked_for("GET", "originals/") <= 2 * settings.MODEL_THREADS
    store.fault = lambda method, name: ""
    assert pipeline.classify_queued() == 8
    assert states() == {("classified", 1, 0)}


@pytest.mark.django_db(transaction=True)
def test_store_that_takes_no_thumbnails_delays_a_claim_once(
    store: FakeStore, make_image: MakeImage, model_version: ModelVersion, settings: Any
) -> None:
    for _ in range(8):
        make_image()
    store.fault = lambda method, name: "hang" if method == "PUT" else ""
    assert pipeline.classify_queued() == 8
    assert store.asked_for("PUT", "thumbnails/") <= settings.MODEL_THREADS
    assert states() == {("classified", 1, 0)}
    assert not CellImage.objects.filter(has_thumbnail=True).exists()


@pytest.mark.django_db
def test_page_asks_a_store_that_hangs_once(
    store: FakeStore, make_image: MakeImage, technologist: User, sign_in: Any
) -> None:
    image = make_image()
    store.fault = lambda method, name: "hang"
    client = sign_in(technologist)
    client.raise_request_exception = False
    answer = client.get(reverse("image-file", args=[image.pk]))
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert store.asked_for("GET", "originals/") == 1


# --- One object that can't be read ---------------------------------------------------------------------------------
@pytest.mark.parametrize("code", ["InternalError", "AccessDenied", "InvalidObjectState", "hang"])
@pytest.mark.django_db(transaction=True)
def test_picture_that_the_store_does_not_give_fails_and_the_others_go_on(
    code: str, store: FakeStore, make_image: MakeImage, model_version: ModelVersion
) -> None:
    bad, good = make_image(), make_image()
    store.fault = lambda method, name: code if (method, name) == ("GET", bad.file.name) else ""
    while pipeline.classify_queued():
        pass
    bad.refresh_from_db()
    good.refresh_from_db()
    assert (bad.status, bad.failure_code, bad.faults) == ("failed", "unreadable_image", 3)
    assert (good.status, good.faults) == ("classified", 0)
    assert not [name for name in store.objects if name.startswith("probe")]


@pytest.mark.django_db(transaction=True)
def test_refusal_that_is_over_at_once_costs_no_try(
    store: FakeStore, make_image: MakeImage, model_version: ModelVersion
) -> None:
    make_image()
    refusals = ["SlowDown"]
    store.fault = lambda method, name: refusals.pop() if refusals and method == "GET" else ""
    assert pipeline.classify_queued() == 1
    assert states() == {("classified", 1, 0)}


@pytest.mark.django_db(transaction=True)
def test_store_that_lets_us_in_but_lost_its_disks_costs_no_picture_a_try(
    store: FakeStore, make_image: MakeImage, model_version: ModelVersion
) -> None:
    make_image()
    store.fault = lambda method, name: "InternalError" if name and method in ("GET", "PUT") else ""
    files = private_files()
    assert isinstance(files, BucketStorage)
    assert files.looked_at() is None
    for _ in range(4):
        with pytest.raises(StorageUnavailable):
            pipeline.classify_queued()
    assert states() == {("queued", 0, 0)}


# --- A name that is taken ------------------------------------------------------------------------------------------
def test_write_that_was_carried_out_twice_is_one_write(store: FakeStore) -> None:
    store.fault = lambda method, name: "twice" if method == "PUT" else ""
    assert private_files().save(CELLS, ContentFile(b"picture")) == CELLS
    store.fault = lambda method, name: ""
    second = private_files().save(CELLS, ContentFile(b"picture"))
    assert second != CELLS, "the same bytes of another writer are another file"
    assert set(store.objects) == {CELLS, second}


def test_write_knows_its_own_in_a_real_store(in_a_bucket: ObjectStore) -> None:
    files = private_files()
    assert isinstance(files, BucketStorage)
    files.put(CELLS, ContentFile(b"picture"), Metadata={bucket_storage.WRITER: "us"})
    assert files.is_written_by("us", CELLS)
    assert not files.is_written_by("somebody else", CELLS)
    assert not files.is_written_by("us", "no-such.jpg")


def test_missing_bucket_is_no_missing_file_even_where_only_the_size_is_asked(
    in_a_bucket: ObjectStore, settings: Any
) -> None:
    away(settings, bucket="no-such-bucket")
    for ask in (private_files().size, private_files().exists):
        with pytest.raises(StorageUnavailable):
            ask("no-such.jpg")


# --- A restore that fails ------------------------------------------------------------------------------------------
@pytest.fixture
def backup(in_a_bucket: ObjectStore, make_image: MakeImage, tmp_path: Path, settings: Any) -> Path:
    settings.AUDIT_HEADS_FILE = tmp_path / "heads.jsonl"
    make_image()
    back_up(tmp_path / "backup", io.StringIO())
    away(settings, prefix=f"{tmp_path.name}-{time.monotonic_ns()}")
    return tmp_path / "backup"


@pytest.mark.django_db(transaction=True)
def test_restore_that_fails_takes_back_what_it_wrote_and_nothing_else(
    backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def somebody_writes(*_: Any) -> None:
        assert len(list(private_files().files())) == 1
        private_files().save("originals/x/theirs.jpg", ContentFile(b"theirs"))
        raise BackupRefused("the rows differ")

    monkeypatch.setattr(restoring, "require_empty", lambda: None)
    monkeypatch.setattr(restoring, "load", somebody_writes)
    with pytest.raises(BackupRefused):
        restoring.restore(backup, io.StringIO())
    assert [file.name for file in private_files().files()] == ["originals/x/theirs.jpg"]


@pytest.mark.django_db(transaction=True)
def test_restore_whose_store_goes_away_says_what_went_wrong_first(
    backup: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    def store_goes(*_: Any) -> None:
        away(settings, endpoint_url=REFUSED)
        raise BackupRefused("the rows differ")

    monkeypatch.setattr(restoring, "require_empty", lambda: None)
    monkeypatch.setattr(restoring, "load", store_goes)
    with pytest.raises(BackupRefused) as refused:
        restoring.restore(backup, io.StringIO())
    assert refused.value.message == "the rows differ"


# --- Exports, which grow -------------------------------------------------------------------------------------------
@pytest.fixture
def waiting(
    in_a_bucket: ObjectStore, make_image: MakeImage, reader: User, auditor: User, monkeypatch: pytest.MonkeyPatch
) -> Export:
    return export_in_slices(make_image, reader, auditor, monkeypatch)


def copies(settings: Any) -> list[Path]:
    return list((settings.VAR_DIR / "drafts").glob("*"))


def write_all(export: Export) -> Export:
    for _ in range(10):
        export_steps.continue_export()
        export.refresh_from_db()
        if export.finished_at:
            return export
    message = "The export comes to no end."
    raise AssertionError(message)


@pytest.mark.django_db
def test_outage_leaves_no_copy_on_the_worker_that_met_it(waiting: Export, settings: Any) -> None:
    export_steps.continue_export()
    good = settings.STORAGES
    assert len(copies(settings)) == 1
    away(settings)
    export_steps.continue_export()
    assert copies(settings) == []
    settings.STORAGES = good
    write_all(waiting)
    assert_whole(waiting)


@pytest.mark.django_db
def test_outage_in_the_middle_of_a_slice_leaves_no_copy_either(
    waiting: Export, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, begin_slice = settings.STORAGES, export_steps.begin_slice

    def begin_and_lose(*args: Any, **options: Any) -> None:
        begin_slice(*args, **options)
        away(settings)

    monkeypatch.setattr(export_steps, "begin_slice", begin_and_lose)
    export_steps.continue_export()
    assert copies(settings) == []
    waiting.refresh_from_db()
    assert (waiting.claim_token, waiting.faults, waiting.finished_at) == (None, 0, None)
    settings.STORAGES = good


@pytest.mark.django_db
def test_copy_of_an_export_that_another_worker_went_on_with_is_swept_away(waiting: Export, settings: Any) -> None:
    export_steps.continue_export()
    (copy,) = copies(settings)
    export_steps.sweep_exports()
    assert copies(settings) == [copy]
    os.utime(copy, (0, 0))
    export_steps.sweep_exports()
    assert copies(settings) == []


@pytest.mark.django_db
def test_two_processes_that_sweep_the_same_copies_do_not_meet(
    in_a_bucket: ObjectStore, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = settings.VAR_DIR / "drafts" / "gone.zip"
    monkeypatch.setattr(Path, "glob", lambda *_: iter([gone]))
    drafts.forget_old_copies()


@pytest.mark.django_db
def test_export_that_no_store_takes_in_one_piece_fails_with_a_reason(
    waiting: Export, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_steps.continue_export()
    monkeypatch.setattr(drafts, "MOST_BYTES", 1000)
    export = write_all(waiting)
    assert (export.failure_code, export.faults) == ("export_too_large", 0)
    assert "larger than" in export.failure_message
    export_steps.sweep_exports()
    assert not [file.name for file in private_files().files("exports/")]
    assert copies(settings) == []


@pytest.mark.django_db
def test_export_that_this_very_store_refuses_as_too_large_fails_as_well(
    waiting: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = private_files()
    assert isinstance(files, BucketStorage)
    real = files.client.put_object

    def put_object(**asked: Any) -> Any:
        if "IfNoneMatch" in asked:
            raise files.client.exceptions.ClientError({"Error": {"Code": "EntityTooLarge"}}, "PutObject")
        return real(**asked)

    monkeypatch.setattr(files.client, "put_object", put_object)
    assert write_all(waiting).failure_code == "export_too_large"


@pytest.mark.django_db
def test_export_with_a_picture_that_cannot_be_read_is_not_tried_for_ever(
    waiting: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = BucketStorage.block

    def refusing(self: BucketStorage, name: str, start: int) -> tuple[bytes, int]:
        if name.startswith("originals/"):
            raise StorageUnavailable
        return block(self, name, start)

    monkeypatch.setattr(BucketStorage, "block", refusing)
    assert write_all(waiting).failure_code == "export_failed"


@pytest.mark.django_db
def test_draft_is_kept_in_parts_that_fit_into_memory(
    in_a_bucket: ObjectStore, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafts, "PART_BYTES", 100)
    content = os.urandom(250)
    drafts.begin("exports/x/a.csv")
    drafts.path_of("exports/x/a.csv").write_bytes(content)
    drafts.begin_with("exports/x/b.csv", "exports/x/a.csv", 230)
    parts = list(private_files().files("exports/x/b.csv"))
    assert [file.size for file in parts] == [100, 100, 30]
    settings.VAR_DIR = tmp_path / "another machine"
    assert drafts.bring("exports/x/b.csv", 230)
    assert drafts.path_of("exports/x/b.csv").read_bytes() == content[:230]


# --- Several instances in one bucket -------------------------------------------------------------------------------
@pytest.mark.django_db
def test_files_of_an_instance_behind_a_prefix_are_no_orphans_of_the_one_without(
    in_a_bucket: ObjectStore, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_files, "ORPHAN_SECONDS", -60)
    theirs = private_files()
    theirs.save(CELLS, ContentFile(b"theirs"))
    away(settings, prefix="")
    ours = private_files().save(CELLS, ContentFile(b"ours"))
    try:
        found = stored_files.verify_files()
        assert found.orphans == [ours]
        assert stored_files.remove_orphans(found) == 1
        assert theirs.exists(CELLS)
    finally:
        private_files().delete(ours)
    assert fetched_from(theirs) == b"theirs"


def fetched_from(files: Any) -> bytes:
    with files.open(CELLS) as stored:
        content: bytes = stored.read()
    return content


@pytest.mark.parametrize("is_well", [True, False])
def test_trial_leaves_out_the_picture_that_a_store_which_is_well_does_not_give(
    is_well: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, fine = CellImage(), CellImage()

    def prepared(image: CellImage, predictor: object) -> CellImage:
        if image is lost:
            raise StorageUnavailable
        return image

    monkeypatch.setattr(model_trial, "prepared", prepared)
    monkeypatch.setattr(model_trial, "private_files", lambda: SimpleNamespace(works=lambda: is_well))
    predictor: Any = SimpleNamespace(predict=lambda cells: ["said" for _ in cells])
    if is_well:
        assert model_trial.predicted(predictor, [lost, fine]) == [(lost, None), (fine, "said")]
    else:
        with pytest.raises(StorageUnavailable):
            model_trial.predicted(predictor, [lost, fine])
