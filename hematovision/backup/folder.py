"""The folder of a backup: its names, its files with their hashes, and what it says of itself."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from django.core.files import File

from hematovision.backup.errors import BackupRefused
from hematovision.backup.progress import Progress

FORMAT = 1
MANIFEST = "manifest.json"
HASHES = "files.sha256"
DATABASE = "database"
MEDIA = "media"
MODELS = "models"
HEADS = "audit-heads.jsonl"
CHUNK = 1024**2


@dataclass
class Manifest:
    """What a backup says of itself. `unsound` lists files of rows that were missing or altered when it was made."""

    format: int
    created_at: str
    version: str
    database: str
    migrations: list[list[str]]
    rows: dict[str, int]
    chain_head: dict[str, Any] | None
    key_check: str
    files: int
    files_bytes: int
    files_sha256: str
    unsound: list[list[str]] = field(default_factory=list)
    models_missing: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        with private(folder / MANIFEST) as file:
            file.write(json.dumps(asdict(self), indent=1, sort_keys=True).encode() + b"\n")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Raises BackupRefused where the folder is no whole backup, or one of a newer form."""
        try:
            content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            message = f"{folder} is no whole backup: it has no {MANIFEST}, which is written last."
            raise BackupRefused(message) from error
        except ValueError as error:
            message = f"The {MANIFEST} in {folder} can't be read. Take another backup."
            raise BackupRefused(message) from error
        if content.get("format") != FORMAT:
            message = f"{folder} has form {content.get('format')}, which this version does not know. Use a newer one."
            raise BackupRefused(message)
        return cls(**content)


class Hashes:
    """The files of a backup while it is written: each is added with the SHA-256 of what was written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.bytes = 0

    def add(self, path: Path, digest: str) -> None:
        self.lines.append(f"{digest}  {path.relative_to(self.folder).as_posix()}\n")
        self.bytes += path.stat().st_size

    def write(self) -> str:
        """Write the list; returns its own SHA-256."""
        content = "".join(self.lines).encode()
        with private(self.folder / HASHES) as file:
            file.write(content)
        return sha256(content).hexdigest()


def private(path: Path) -> IO[bytes]:
    """A new file that only its owner reads, in folders that only their owner enters."""
    make_folder(path.parent)
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))


def make_folder(path: Path) -> None:
    for each in [*reversed(path.parents), path]:
        if not each.exists():
            each.mkdir(mode=0o700, exist_ok=True)


def copy_file(source: Path, target: Path) -> str:
    """Copy the bytes; returns their SHA-256. Raises FileNotFoundError before anything is written."""
    with source.open("rb") as opened:
        return copy_opened(opened, target)


def copy_opened(stored: IO[bytes] | File, target: Path) -> str:
    digest = sha256()
    with private(target) as copy:
        while chunk := stored.read(CHUNK):
            digest.update(chunk)
            copy.write(chunk)
    return digest.hexdigest()


def hash_of(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def require_whole(folder: Path, manifest: Manifest, progress: Progress) -> None:
    """Raises BackupRefused unless every file of the backup is there and is what it was."""
    listing = folder / HASHES
    if not listing.is_file() or hash_of(listing) != manifest.files_sha256:
        message = f"{listing} is missing or is not the one that was written. Take another backup."
        raise BackupRefused(message)
    for line in listing.read_text(encoding="utf-8").splitlines():
        digest, name = line.split("  ", 1)
        path = folder / name
        if not path.is_file():
            message = f"The backup is not whole: {name} is missing. Take another backup."
            raise BackupRefused(message)
        if hash_of(path) != digest:
            message = f"The backup was altered or damaged: {name} is not what was written. Take another backup."
            raise BackupRefused(message)
        progress.step(path.stat().st_size)
    progress.end()
