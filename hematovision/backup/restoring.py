"""Makes an empty instance whole from a backup: files, models and heads first, then all rows in one transaction.

The database is brought to the migrations of the backup, filled, and only then migrated on: so an older backup is read
by a newer version.
"""

import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TextIO
from uuid import uuid4

from django.apps import apps
from django.conf import settings
from django.core.cache import cache
from django.core.files import File
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.db.migrations.executor import MigrationExecutor

from classifier.errors import StorageUnavailable
from classifier.storage import private_files
from hematovision.backup.errors import BackupRefused, RestoreUnfinished
from hematovision.backup.folder import (
    DATABASE,
    HEADS,
    MEDIA,
    MODELS,
    Manifest,
    copy_file,
    files_below,
    hash_of,
    require_whole,
)
from hematovision.backup.progress import Progress
from hematovision.backup.rows import (
    FILLED_BY_TRIGGER,
    SEEDED,
    empty_tables,
    first_used_table,
    load_table,
    reset_sequences,
    tables,
)
from hematovision.backup.writing import key_check

OURS = ("accounts", "classifier")


def restore(folder: Path, out: TextIO) -> Manifest:
    """Fill this instance, which must be empty, from the backup in `folder`.

    Raises BackupRefused before anything is changed, or where the rows don't come out as they went in, and OSError or
    DatabaseError where a disk or the database refuses: the instance is empty again then. Raises RestoreUnfinished where
    everything is restored and the way to this version fails.
    """
    manifest = Manifest.read(folder)
    require_empty()
    require_known(manifest)
    require_whole(folder, manifest, Progress(out, "checking the backup", manifest.files))
    require_same_bundles(folder)
    with ExitStack() as undo:
        copy_media(folder, out, undo)
        copy_bundles(folder, undo)
        copy_heads(folder, out, undo)
        # Last: once the rows are there, nothing of the backup is missing.
        load(folder, manifest, out)
        undo.pop_all()
    migrate_on()
    if manifest.key_check != key_check():
        out.write(
            "SECRET_KEY is not the one of the backed up instance: the secrets of webhooks and second factors can't be "
            "read until it is, or until it is named in SECRET_KEY_FALLBACKS.\n"
        )
    return manifest


def migrate_on() -> None:
    """From the version of the backup to this one."""
    try:
        call_command("migrate", interactive=False, verbosity=0)
        call_command("createcachetable", verbosity=0)
        # What this instance counted while it was empty.
        cache.clear()
    except (DatabaseError, OSError) as error:
        message = (
            f"All rows and files are restored, but the database could not be brought to this version: {error}. Mend "
            "that, then run manage.py migrate, createcachetable, verify_audit and verify_storage."
        )
        raise RestoreUnfinished(message) from error


def require_empty() -> None:
    if used := first_used_table(tables(apps)):
        message = (
            f"This instance is not empty: there are rows in {used}. Restore into a fresh one, with another "
            "HEMATOVISION_VAR or an empty database in DATABASE_URL."
        )
        raise BackupRefused(message)
    files = private_files()
    if any(files.files()):
        place = f"in {files.folder}" if files.folder else "in the bucket"
        message = (
            f"There are files {place} already. Restore into a fresh instance, or name another MEDIA_ROOT or S3_PREFIX."
        )
        raise BackupRefused(message)


def require_known(manifest: Manifest) -> None:
    """Raises BackupRefused where the backup is newer than this version, or this database newer than the backup."""
    executor = MigrationExecutor(connection)
    backed_up = {(app, name) for app, name in manifest.migrations}
    if unknown := sorted(
        f"{app}.{name}" for app, name in backed_up - set(executor.loader.disk_migrations) if app in OURS
    ):
        message = f"The backup was made by a newer version of HematoVision ({unknown[-1]}); restore it with that one."
        raise BackupRefused(message)
    if later := sorted(
        f"{app}.{name}" for app, name in executor.loader.applied_migrations if (app, name) not in backed_up
    ):
        message = f"The database is migrated further than the backup ({later[-1]}). Restore into an empty database."
        raise BackupRefused(message)


def require_same_bundles(folder: Path) -> None:
    """Raises BackupRefused where a bundle of the same name is here with other files."""
    for bundle in bundles(folder):
        here = Path(settings.MODEL_BUNDLES) / bundle.name
        for path in files_below(bundle) if here.exists() else ():
            twin = here / path.relative_to(bundle)
            if not twin.is_file() or hash_of(twin) != hash_of(path):
                message = f"The model bundle {here} is not the one of the backup. Put it aside, or set MODEL_BUNDLES."
                raise BackupRefused(message)


def bundles(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / MODELS).glob("*") if path.is_dir())


def load(folder: Path, manifest: Manifest, out: TextIO) -> None:
    """Migrate to where the backup was and put its rows in. Foreign keys are checked when all of them are there."""
    executor = MigrationExecutor(connection)
    targets = leaves(executor, manifest)
    executor.migrate(targets)
    models = tables(executor.loader.project_state(targets).apps)
    if strange := sorted(set(manifest.rows) - set(models)):
        message = f"The backup has a table that this version does not know: {strange[0]}."
        raise BackupRefused(message)
    progress = Progress(out, "database: tables", len(manifest.rows))
    later = [name for name in FILLED_BY_TRIGGER if name in manifest.rows]
    with transaction.atomic():
        empty_tables(name for name in SEEDED if name in models)
        for name in [*(name for name in sorted(manifest.rows) if name not in later), *later]:
            if name in later:
                empty_tables([name])
            count = load_table(models[name], folder / DATABASE / f"{name}.jsonl.gz")
            if count != manifest.rows[name]:
                message = f"{name} has {count:,} rows in the backup and should have {manifest.rows[name]:,}."
                raise BackupRefused(message)
            progress.step()
        reset_sequences(models.values())
        require_counts(manifest)
        connection.check_constraints()
    progress.end()


def leaves(executor: MigrationExecutor, manifest: Manifest) -> list[tuple[str, str]]:
    """The last migrations that the backup had, of each app that is still here."""
    known = set(executor.loader.graph.nodes)
    backed_up = {(app, name) for app, name in manifest.migrations} & known
    return sorted(key for key in backed_up if not has_own_child(executor, key, backed_up))


def has_own_child(executor: MigrationExecutor, key: tuple[str, str], among: set[tuple[str, str]]) -> bool:
    """Whether a later migration of the same app is among them."""
    children = executor.loader.graph.node_map[key].children
    return any(child.key in among and child.key[0] == key[0] for child in children)


def require_counts(manifest: Manifest) -> None:
    with connection.cursor() as cursor:
        for name, expected in manifest.rows.items():
            cursor.execute(f"SELECT COUNT(*) FROM {connection.ops.quote_name(name)}")  # noqa: S608 (names of ours)
            count = cursor.fetchone()[0]
            if count != expected:
                message = f"{name} has {count:,} rows and should have {expected:,}. Nothing was restored."
                raise BackupRefused(message)


def copy_media(folder: Path, out: TextIO, undo: ExitStack) -> None:
    source, written = folder / MEDIA, list[str]()
    undo.callback(remove_media, written)
    progress = Progress(out, "files")
    for path in files_below(source):
        name = path.relative_to(source).as_posix()
        with path.open("rb") as file:
            written.append(private_files().save(name, File(file)))
        if written[-1] != name:
            message = "Somebody else writes to the same place. Restore into a fresh instance that nobody uses yet."
            raise BackupRefused(message)
        progress.step(path.stat().st_size)
    progress.end()


def remove_media(written: list[str]) -> None:
    """What this restore wrote, and nothing that somebody else may have put there meanwhile.

    As far as the disk or the store lets us: why the restore failed is what the operator must read.
    """
    files = private_files()
    with suppress(OSError, StorageUnavailable):
        for name in written:
            files.delete(name)
        # The deepest first.
        for path in sorted(files.folder.rglob("*"), reverse=True) if files.folder else ():
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def copy_bundles(folder: Path, undo: ExitStack) -> None:
    """Put the models where they are looked for; one that is there already is the same one."""
    for bundle in bundles(folder):
        target = Path(settings.MODEL_BUNDLES) / bundle.name
        if target.exists():
            continue
        partial = target.with_name(f".{bundle.name}.partial-{uuid4().hex[:8]}")
        undo.callback(shutil.rmtree, partial, ignore_errors=True)
        for path in files_below(bundle):
            copy_file(path, partial / path.relative_to(bundle))
        partial.rename(target)
        undo.callback(shutil.rmtree, target, ignore_errors=True)


def copy_heads(folder: Path, out: TextIO, undo: ExitStack) -> None:
    """The heads of the trail's chain. A file of heads that is here already may know more, so it stays."""
    heads, target = folder / HEADS, Path(settings.AUDIT_HEADS_FILE)
    if not heads.is_file():
        return
    if target.exists():
        out.write(f"{target} is there already and was left as it is; the heads of the backup are in {heads}.\n")
        return
    undo.callback(target.unlink, missing_ok=True)
    copy_file(heads, target)
