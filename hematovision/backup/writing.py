"""Makes a backup of a running instance: rows of one moment first, then the files that they name.

Files are written before their rows and deleted after them, so whatever the rows of the snapshot name is there, unless
it was removed meanwhile. That harms nothing where a rule removed it. The archive of a batch that was checked meanwhile
is missed, because its pictures became images after the snapshot: so archives are copied first.
"""

import json
import os
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO
from uuid import UUID, uuid4

from django.apps import apps
from django.conf import settings
from django.core.files.storage import default_storage
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.utils.crypto import salted_hmac

from accounts.models import AuditSeal
from classifier import thumbnails
from classifier.active_model import bundle_of
from classifier.models import Batch, CellImage, Export, ModelVersion, RemovedPicture
from classifier.storage_use import size_in_words
from hematovision.backup.errors import BackupRefused
from hematovision.backup.folder import (
    DATABASE,
    FORMAT,
    HEADS,
    MEDIA,
    MODELS,
    Hashes,
    Manifest,
    copy_file,
    copy_opened,
    files_below,
    hash_of,
    private,
)
from hematovision.backup.progress import Progress
from hematovision.backup.rows import read_columns, snapshot, tables, write_table


@dataclass(frozen=True)
class NamedFile:
    """A file that a row names, by its name in the storage; `sha256` is empty where the row has none."""

    name: str
    sha256: str
    image: str = ""
    may_lack: bool = False
    # A file that makes this one needless.
    unless: str = ""


def back_up(folder: Path, out: TextIO) -> Manifest:
    """Write a backup to `folder`, which must not exist yet or be empty; it gets its name once it is whole.

    Raises BackupRefused, or OSError where the disk refuses; nothing is left behind then.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        message = f"{folder} is there already. Name a folder that does not exist yet."
        raise BackupRefused(message)
    require_migrated()
    partial = folder.with_name(f".{folder.name}.partial-{uuid4().hex[:8]}")
    try:
        manifest = written(partial, out)
        # Everything is on the disk before the name says that the backup is whole.
        os.sync()
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def require_migrated() -> None:
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        message = "The database is not migrated to this version. Start the instance, or run manage.py migrate, first."
        raise BackupRefused(message)


def written(folder: Path, out: TextIO) -> Manifest:
    hashes = Hashes(folder)
    created_at = datetime.now(UTC)
    models = tables(apps)
    rows: dict[str, int] = {}
    with snapshot():
        applied = MigrationRecorder(connection).applied_migrations()
        head = AuditSeal.objects.order_by("-number").values("number", "mac").first()
        versions = list(ModelVersion.objects.order_by("registered_at"))
        for name, model in models.items():
            path = folder / DATABASE / f"{name}.jsonl.gz"
            with private(path):
                pass
            rows[name] = write_table(model, path)
    # Not within: the server ends a transaction in which nothing is asked for a minute, and a large table takes longer.
    for name in rows:
        path = folder / DATABASE / f"{name}.jsonl.gz"
        hashes.add(path, hash_of(path))
    out.write(f"database: {sum(rows.values()):,} rows of {len(rows)} tables\n")
    unsound = copy_files(folder, hashes, out)
    missing = [str(version) for version in versions if not copy_bundle(version, folder, hashes)]
    if head:
        copy_heads(folder, hashes, up_to=head["number"])
    manifest = Manifest(
        format=FORMAT,
        created_at=created_at.isoformat(),
        version=product_version(),
        database=connection.vendor,
        migrations=sorted([app, name] for app, name in applied),
        rows=rows,
        chain_head=dict(head) if head else None,
        key_check=key_check(),
        files=len(hashes.lines),
        files_bytes=hashes.bytes,
        files_sha256=hashes.write(),
        unsound=unsound,
        models_missing=missing,
    )
    manifest.write(folder)
    return manifest


def product_version() -> str:
    """The version in pyproject.toml, which lies beside the code."""
    with suppress(OSError, ValueError, KeyError):
        content = tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text(encoding="utf-8"))
        return str(content["project"]["version"])
    return "unknown"


def key_check() -> str:
    """Tells whether a restored instance has the SECRET_KEY of this one, and nothing else of it."""
    return salted_hmac("hematovision.backup", "key check", algorithm="sha256").hexdigest()[:16]


def named_files(folder: Path) -> Iterator[NamedFile]:
    """Every file that the rows of the backup name: archives, originals, thumbnails and finished exports."""
    archives = read_columns(table(folder, Batch), "archive", "checked_at", "cancelled_at")
    for name, checked_at, cancelled_at in archives:
        if name:
            yield NamedFile(name, "", may_lack=bool(checked_at or cancelled_at))
    image_rows = table(folder, CellImage)
    removed = {row[0] for row in read_columns(table(folder, RemovedPicture), "image_id")}
    for key, name, digest, has_thumbnail in read_columns(image_rows, "id", "file", "stored_sha256", "has_thumbnail"):
        if key not in removed:
            yield NamedFile(name, digest, image=key)
        if has_thumbnail and key not in removed:
            today, *earlier = thumbnails.paths_of(CellImage(file=name))
            yield NamedFile(today, "", may_lack=True)
            yield from (NamedFile(each, "", may_lack=True, unless=today) for each in earlier)
    for name, digest, finished_at in read_columns(table(folder, Export), "file", "sha256", "finished_at"):
        # What is being written is written anew by the worker of the restored instance.
        if name and finished_at:
            yield NamedFile(name, digest, may_lack=True)


def table(folder: Path, model: type) -> Path:
    return folder / DATABASE / f"{model._meta.db_table}.jsonl.gz"  # type: ignore[attr-defined]


def copy_files(folder: Path, hashes: Hashes, out: TextIO) -> list[list[str]]:
    """Copy what the rows name; returns what is missing or altered though it should be there."""
    total = wanted = 0
    for (size,) in read_columns(table(folder, CellImage), "stored_bytes"):
        total, wanted = total + 1, wanted + size
    free = shutil.disk_usage(folder).free
    if free < wanted:
        message = (
            f"There is not enough room: the originals take {size_in_words(wanted)}, {size_in_words(free)} are free."
        )
        raise BackupRefused(message)
    progress = Progress(out, "files", total)
    unsound: list[list[str]] = []
    for file in named_files(folder):
        if file.unless and (folder / MEDIA / file.unless).exists():
            continue
        target = folder / MEDIA / file.name
        try:
            digest = copy_stored(file.name, target)
        except FileNotFoundError:
            if not file.may_lack and not removed_meanwhile(file):
                unsound.append(["missing", file.name])
            continue
        hashes.add(target, digest)
        if file.sha256 and digest != file.sha256 and not replaced_meanwhile(file, digest):
            unsound.append(["altered", file.name])
        progress.step(target.stat().st_size)
    progress.end()
    return unsound


def copy_stored(name: str, target: Path) -> str:
    """Copy a file of the storage; returns its SHA-256. Raises FileNotFoundError before anything is written."""
    with default_storage.open(name) as stored:
        return copy_opened(stored, target)


def removed_meanwhile(file: NamedFile) -> bool:
    """Whether the row has let go of the file since the snapshot: by a retention rule, or for a restored picture."""
    if not file.image:
        return False
    image = CellImage.objects.filter(pk=UUID(file.image)).first()
    return image is None or image.file.name != file.name or RemovedPicture.objects.filter(image=image).exists()


def replaced_meanwhile(file: NamedFile, digest: str) -> bool:
    """Whether a damaged picture was handed in again, under the same name, since the snapshot."""
    return bool(file.image) and CellImage.objects.filter(pk=UUID(file.image), stored_sha256=digest).exists()


def copy_bundle(version: ModelVersion, folder: Path, hashes: Hashes) -> bool:
    """Copy the model's files; returns False where they are gone. A bundle's own card holds the hashes that count."""
    bundle = bundle_of(version)
    if not bundle.is_dir():
        return False
    for path in files_below(bundle):
        target = folder / MODELS / version.bundle_name / path.relative_to(bundle)
        hashes.add(target, copy_file(path, target))
    return True


def copy_heads(folder: Path, hashes: Hashes, *, up_to: int) -> None:
    """The heads of the seals that are in the snapshot: later ones would make its trail look cut."""
    heads = Path(settings.AUDIT_HEADS_FILE)
    if not heads.is_file():
        return
    target = folder / HEADS
    with heads.open(encoding="utf-8") as lines, private(target) as copy:
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):
                if json.loads(line)["number"] <= up_to:
                    copy.write(line.encode())
    hashes.add(target, hash_of(target))
