"""Backup and restore in one process: everything comes back, and what is not whole is refused."""

import gzip
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.db.migrations.recorder import MigrationRecorder

from accounts.models import AuditEvent, User
from classifier import services, thumbnails
from classifier.models import Batch, Case, CellImage, ModelVersion, RemovedPicture, RetentionRule
from hematovision.backup import restoring, rows
from hematovision.backup.errors import BackupRefused
from hematovision.backup.folder import Hashes, Manifest, files_below, hash_of
from hematovision.backup.restoring import restore
from hematovision.backup.writing import back_up, copy_stored
from tests.conftest import PASSWORD
from tests.factories import prediction_of
from tests.handing_in import check_all, submitted
from tests.zips import cells

MakeImage = Callable[..., CellImage]
pytestmark = pytest.mark.django_db(transaction=True)


def contents() -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table that is backed up, as it is read."""
    return {
        name: [
            tuple(map(str, row))
            for row in model._base_manager.order_by("pk").values_list(*(f.attname for f in rows.columns(model)))
        ]
        for name, model in rows.tables(apps).items()
    }


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def emptied(settings: Any) -> None:
    """The instance as it would be after its first migration."""
    call_command("flush", interactive=False, verbosity=0)
    shutil.rmtree(settings.MEDIA_ROOT, ignore_errors=True)


@pytest.fixture
def filled(make_image: MakeImage, model_version: ModelVersion, technologist: User, reader: User) -> Case:
    """A case with what rows can hold: text of all kinds, numbers, JSON, a signed report, an image of each status."""
    for status in ("queued", "claimed", "failed"):
        make_image(status)
    case = services.open_case(
        actor=technologist, accession_number="Ä-1 'quoted'\t\\N", patient_pseudonym="P-7 ☃", specimen='"EDTA"\nline'
    )
    image = make_image("classified", case=case)
    prediction_of(image, model_version, confidence=0.1 + 0.2)
    services.review_image(actor=reader, image=image, verdict="CONFIRMED", comment="sure\u2028")
    services.release_report(actor=reader, case=case, password=PASSWORD, reason="one cell")
    return case


@pytest.fixture
def backup(filled: Case, tmp_path: Path, settings: Any) -> Iterator[Path]:
    settings.AUDIT_HEADS_FILE = tmp_path / "heads.jsonl"
    back_up(tmp_path / "backup", io.StringIO())
    yield tmp_path / "backup"
    cache.clear()


def test_restored_instance_is_the_one_that_was_backed_up(backup: Path, settings: Any) -> None:
    before, stored = contents(), files(settings.MEDIA_ROOT)
    emptied(settings)

    restore(backup, io.StringIO())

    assert contents() == before
    assert files(settings.MEDIA_ROOT) == stored
    assert len(stored) == 4
    call_command("verify_storage", stdout=io.StringIO())


def test_numbers_go_on_after_a_restore_and_facts_stay_facts(backup: Path, settings: Any, filled: Case) -> None:
    emptied(settings)
    restore(backup, io.StringIO())
    reader = User.objects.get(email="ruth@north.example")
    case = Case.objects.get(pk=filled.pk)

    services.amend_report(actor=reader, case=case, kind="amended", reason="one more look")

    assert AuditEvent.objects.filter(action="amendment_opened").count() == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM django_content_type")
        assert cursor.fetchone()[0] > 10


def test_backup_is_private_and_can_be_checked_without_us(backup: Path) -> None:
    assert all(path.stat().st_mode & 0o077 == 0 for path in [backup, *backup.rglob("*")])
    manifest = json.loads((backup / "manifest.json").read_text())
    lines = (backup / "files.sha256").read_text().splitlines()
    assert manifest["files"] == len(lines)
    assert manifest["rows"]["classifier_cellimage"] == 4
    # Patient text is in the rows alone: the names of files, which end up in logs of copies, hold ids.
    assert not any("Ä-1" in line or "P-7" in line for line in lines)


@pytest.mark.parametrize("damage", ["row", "file", "list", "unfinished", "cut"])
def test_backup_that_is_not_whole_is_refused_before_anything_is_changed(
    damage: str, backup: Path, settings: Any
) -> None:
    emptied(settings)
    if damage == "row":
        table = backup / "database" / "classifier_case.jsonl.gz"
        table.write_bytes(gzip.compress(gzip.decompress(table.read_bytes()).replace(b"P-7", b"P-8")))
    elif damage == "file":
        next(path for path in (backup / "media").rglob("*.jpg")).unlink()
    elif damage == "list":
        with (backup / "files.sha256").open("a") as listing:
            listing.write("0" * 64 + "  manifest.json\n")
    elif damage == "unfinished":
        (backup / "manifest.json").unlink()
    else:
        (backup / "manifest.json").write_text("{")

    with pytest.raises(BackupRefused) as refused:
        restore(backup, io.StringIO())

    assert "Take another backup" in refused.value.message or "no whole backup" in refused.value.message
    assert not User.objects.exists()
    assert files(settings.MEDIA_ROOT) == {}


def test_nothing_is_restored_over_what_is_there(backup: Path, settings: Any) -> None:
    with pytest.raises(BackupRefused, match="backup_refused") as refused:
        restore(backup, io.StringIO())
    assert "not empty" in refused.value.message

    call_command("flush", interactive=False, verbosity=0)
    with pytest.raises(BackupRefused) as refused:
        restore(backup, io.StringIO())
    assert "There are files in" in refused.value.message


def test_rows_that_do_not_come_out_as_they_went_in_leave_an_empty_instance(
    backup: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied(settings)
    manifest = Manifest.read(backup)
    manifest.rows["classifier_review"] += 1
    (backup / "manifest.json").unlink()
    manifest.write(backup)

    with pytest.raises(BackupRefused):
        restore(backup, io.StringIO())

    assert not User.objects.exists()
    assert files(settings.MEDIA_ROOT) == {}


@pytest.mark.parametrize("refusing", ["MODEL_BUNDLES", "AUDIT_HEADS_FILE"])
def test_place_that_cannot_be_written_is_met_before_the_rows(
    refusing: str, backup: Path, settings: Any, tmp_path: Path
) -> None:
    """Nothing was restored, as it says; the same command works once the place is mended."""
    emptied(settings)
    (backup / "audit-heads.jsonl").write_text("{}\n")
    manifest_with_every_file(backup)
    in_the_way = tmp_path / "in-the-way"
    in_the_way.write_text("no folder")
    settings.MODEL_BUNDLES, settings.AUDIT_HEADS_FILE = tmp_path / "models", tmp_path / "new" / "heads.jsonl"
    mended = getattr(settings, refusing)
    setattr(settings, refusing, in_the_way / "heads.jsonl")

    with pytest.raises(CommandError, match="Nothing was restored"):
        call_command("restore", str(backup), stdout=io.StringIO(), stderr=io.StringIO())
    assert not User.objects.exists()
    assert files(settings.MEDIA_ROOT) == files(tmp_path / "models") == {}

    setattr(settings, refusing, mended)
    restore(backup, io.StringIO())
    assert User.objects.exists()
    assert sorted(path.name for path in settings.MODEL_BUNDLES.iterdir()) == [
        path.name for path in sorted((backup / "models").iterdir())
    ]
    assert settings.AUDIT_HEADS_FILE.read_text() == "{}\n"


def test_rows_that_are_refused_leave_no_model_and_no_heads(
    backup: Path, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied(settings)
    (backup / "audit-heads.jsonl").write_text("{}\n")
    manifest_with_every_file(backup)
    settings.MODEL_BUNDLES, settings.AUDIT_HEADS_FILE = tmp_path / "models", tmp_path / "new" / "heads.jsonl"

    def refused(*_: Any) -> None:
        raise DatabaseError("no")

    monkeypatch.setattr(restoring, "load", refused)
    with pytest.raises(CommandError, match="Nothing was restored"):
        call_command("restore", str(backup), stdout=io.StringIO(), stderr=io.StringIO())
    assert files(settings.MEDIA_ROOT) == files(tmp_path / "models") == files(tmp_path / "new") == {}


def test_what_fails_after_the_rows_are_there_does_not_say_that_they_are_not(
    backup: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied(settings)

    def refused(*_: Any, **__: Any) -> None:
        raise DatabaseError("disk is full")

    monkeypatch.setattr(restoring, "call_command", refused)
    with pytest.raises(CommandError, match="All rows and files are restored, but") as error:
        call_command("restore", str(backup), stdout=io.StringIO(), stderr=io.StringIO())

    assert "disk is full" in str(error.value)
    assert "Nothing was restored" not in str(error.value)
    assert User.objects.exists()
    assert len(files(settings.MEDIA_ROOT)) == 4


def manifest_with_every_file(backup: Path) -> None:
    """As if what lies in the folder now had been written when the backup was made."""
    manifest = Manifest.read(backup)
    hashes = Hashes(backup)
    for path in files_below(backup):
        if path.name not in ("manifest.json", "files.sha256"):
            hashes.add(path, hash_of(path))
    for name in ("manifest.json", "files.sha256"):
        (backup / name).unlink()
    manifest.files, manifest.files_sha256 = len(hashes.lines), hashes.write()
    manifest.write(backup)


def test_backup_of_a_newer_version_is_named_and_refused(backup: Path, settings: Any) -> None:
    emptied(settings)
    manifest = Manifest.read(backup)
    manifest.migrations.append(["classifier", "9999_tomorrow"])
    (backup / "manifest.json").unlink()
    manifest.write(backup)

    with pytest.raises(BackupRefused) as refused:
        restore(backup, io.StringIO())
    assert "newer version of HematoVision (classifier.9999_tomorrow)" in refused.value.message


def test_folder_that_exists_is_not_written_to(filled: Case, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("mine")

    with pytest.raises(CommandError, match="is there already"):
        call_command("backup", str(taken))
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_backup_that_breaks_off_leaves_nothing(filled: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "disk")

    monkeypatch.setattr("hematovision.backup.writing.copy_file", full)
    with pytest.raises(CommandError, match="No space left on device"):
        call_command("backup", str(tmp_path / "backup"), stderr=io.StringIO())
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == []


def test_lost_original_is_said_and_the_rest_is_backed_up(filled: Case, tmp_path: Path, settings: Any) -> None:
    image = CellImage.objects.filter(case=filled).get()
    Path(image.file.path).unlink()
    other = CellImage.objects.exclude(case=filled).first()
    assert other is not None
    Path(other.file.path).write_bytes(b"something else")
    out = io.StringIO()

    with pytest.raises(CommandError, match="2 files were missing or altered") as error:
        call_command("backup", str(tmp_path / "backup"), stdout=io.StringIO(), stderr=out)

    assert error.value.returncode == 3
    assert f"missing: {image.file.name}" in out.getvalue()
    assert f"altered: {other.file.name}" in out.getvalue()
    assert Manifest.read(tmp_path / "backup").files > 10


def test_thumbnail_is_backed_up_in_the_form_that_is_shown(filled: Case, tmp_path: Path, settings: Any) -> None:
    both, before = CellImage.objects.filter(status="reviewed") | CellImage.objects.filter(status="queued")
    CellImage.objects.filter(pk__in=[both.pk, before.pk]).update(has_thumbnail=True)
    thumbnails.store(both, b"of today")
    for image in (both, before):
        name = thumbnails.paths_of(image)[1]
        default_storage.save(name, ContentFile(b"of an earlier version"))

    assert back_up(tmp_path / "backup", io.StringIO()).unsound == []

    kept = {path.name: path.read_bytes() for path in (tmp_path / "backup" / "media" / "thumbnails").rglob("*.*")}
    assert kept == {f"{both.pk}.jpg": b"of today", f"{before.pk}.webp": b"of an earlier version"}


def test_picture_that_was_removed_by_rule_is_not_missed(filled: Case, lab_admin: User, tmp_path: Path) -> None:
    image = CellImage.objects.filter(case=filled).get()
    rule = RetentionRule.objects.create(
        laboratory=filled.laboratory, version=1, keep_days=30, reason="Ours", by=lab_admin
    )
    RemovedPicture.objects.create(image=image, rule=rule)
    Path(image.file.path).unlink()

    assert back_up(tmp_path / "backup", io.StringIO()).unsound == []


@pytest.mark.parametrize("meanwhile", ["copied", "checked"])
def test_archive_that_is_checked_while_files_are_copied_is_copied_before_or_missed(
    meanwhile: str, technologist: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_image: MakeImage
) -> None:
    """Its pictures become images after the snapshot: without the archive they are nowhere in the backup."""
    make_image()
    name = str(submitted(technologist, cells(1)).archive.name)

    def copied(source: str, target: Path) -> str:
        if (meanwhile == "checked") or not source.startswith("archives/"):
            check_all()
        return copy_stored(source, target)

    monkeypatch.setattr("hematovision.backup.writing.copy_stored", copied)
    out = io.StringIO()
    if meanwhile == "copied":
        call_command("backup", str(tmp_path / "backup"), stdout=out, stderr=out)
        assert (tmp_path / "backup" / "media" / name).exists()
    else:
        with pytest.raises(CommandError, match="1 files were missing or altered") as error:
            call_command("backup", str(tmp_path / "backup"), stdout=out, stderr=out)
        assert error.value.returncode == 3
        assert f"missing: {name}" in out.getvalue()
        assert "take another one" in out.getvalue()
    assert not Batch.objects.unchecked().exists()


def test_archive_of_a_checked_batch_is_not_missed(technologist: User, tmp_path: Path) -> None:
    """A worker that dies between the end of the check and the deletion leaves the name in the row."""
    batch = submitted(technologist, cells(1))
    name = batch.archive.name
    check_all()
    Batch.objects.filter(pk=batch.pk).update(archive=name)

    assert back_up(tmp_path / "backup", io.StringIO()).unsound == []


def test_what_happens_while_a_backup_is_made_is_not_in_it(
    filled: Case, technologist: User, make_image: MakeImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last table is read after somebody has written to it: the rows are still those of the first moment."""
    write_table = rows.write_table
    order: list[str] = []

    def slow(model: Any, path: Path) -> int:
        order.append(model._meta.db_table)
        return write_table(model, path)

    monkeypatch.setattr("hematovision.backup.writing.write_table", slow)
    images = CellImage.objects.count()
    with rows.snapshot():
        assert CellImage.objects.count() == images
        in_another_connection(
            "INSERT INTO accounts_laboratory (id, name, created_at, requires_second_factor) "
            "VALUES ('00000000000000000000000000000001', 'Late', '2026-11-23 10:00:00+00:00', FALSE)"
        )
        assert not type(filled.laboratory).objects.filter(name="Late").exists()
    assert type(filled.laboratory).objects.filter(name="Late").exists()


def in_another_connection(statement: str) -> None:
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute(statement)
    finally:
        other.close()


def test_backup_of_an_older_version_is_migrated_on(backup: Path, settings: Any) -> None:
    """What the backup had applied is what is filled; the rest is migrated afterwards. Here: nothing is left to do."""
    emptied(settings)
    restore(backup, io.StringIO())

    applied = {(app, name) for app, name in MigrationRecorder(connection).applied_migrations()}
    assert applied >= {(app, name) for app, name in Manifest.read(backup).migrations}
