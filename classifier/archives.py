"""A ZIP archive, judged: whole by its directory, and file by file. Nothing is ever unpacked to a path that it names.

Only the directory at the end of the archive is read into memory, and only if it is small enough; a file is read when
its turn comes, and never more of it than a picture may have.
"""

import codecs
import csv
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO
from unicodedata import normalize

from django.conf import settings
from django.template.defaultfilters import filesizeformat

from classifier.errors import UnsupportedFormat, UploadRejected, UploadTooLarge
from ml.labels import CELL_TYPES, slug_for_folder

LABELS_FILE = "labels.csv"
MAX_LABELS_BYTES = 4 * 1024**2
# What systems add to an archive without being asked.
IGNORED_NAMES = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
IGNORED_FOLDERS = frozenset({"__macosx"})
ARCHIVE_ENDINGS = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
ARCHIVE_STARTS = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"BZh", b"\xfd7zXZ\x00")
# Room for the directory entry of a file: 46 bytes, a name, and what programs add to it.
DIRECTORY_BYTES_A_MEMBER = 2048
LONGEST_NAME = 300
# A member whose name is longer than this is refused.
MAX_NAME = 1024
# Compression methods that the standard library undoes piece by piece; the others it unpacks without any bound.
KNOWN_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
# Whatever the damage is, reading ends in one of these.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    struct.error,
    OverflowError,
    MemoryError,
)
NO_ARCHIVE = "This is not a ZIP archive, or it is cut off. Pack the pictures into a ZIP file and send that."
DAMAGED = "This file of the archive is damaged. Pack it again and send the new archive."


@dataclass(frozen=True)
class Labels:
    """What labels.csv says: the cell type by the file's name there, and (line, code, sentence) of what is wrong."""

    by_name: Mapping[str, str]
    complaints: Sequence[tuple[int, str, str]]


def shown_path(name: str) -> str:
    """A member's path as it may be shown: without control characters, at most 300 long, the end kept."""
    printable = "".join(character if character.isprintable() else "?" for character in name.replace("\\", "/"))
    return printable.strip()[-LONGEST_NAME:] or "unnamed"


@contextmanager
def opened(file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """The archive, once its directory is found to be within bounds.

    Raises UploadRejected: not_an_archive, encrypted_archive, and (413) too_many_members, directory_too_large,
    archive_unpacks_too_large, archive_ratio.
    """
    require_small_directory(file)
    try:
        archive = zipfile.ZipFile(file)
    except DAMAGE as error:
        raise UploadRejected("not_an_archive", NO_ARCHIVE) from error
    with archive:
        require_within_limits(archive.infolist(), size_of(file))
        yield archive


def size_of(file: IO[bytes]) -> int:
    return file.seek(0, io.SEEK_END)


def require_small_directory(file: IO[bytes]) -> None:
    """Before anything reads the directory: it names its own length, and an archive may claim any."""
    entries, size = directory_claims(file)
    if size > size_of(file):
        raise UploadRejected("not_an_archive", NO_ARCHIVE)
    if entries > settings.MAX_ARCHIVE_MEMBERS:
        raise too_many_members(entries)
    if size > DIRECTORY_BYTES_A_MEMBER * settings.MAX_ARCHIVE_MEMBERS:
        message = "The archive's directory is far too large for its files. Pack the pictures again."
        raise UploadTooLarge("directory_too_large", message)


def directory_claims(file: IO[bytes]) -> tuple[int, int]:
    """(entries, bytes) of the directory, as the record at the end of the archive claims; the greater of both forms."""
    length = size_of(file)
    tail_length = min(length, 22 + 65_535 + 20)
    file.seek(length - tail_length)
    tail = file.read(tail_length)
    # At the very end there is no comment; else the last one counts, as the standard library has it.
    at = len(tail) - 22 if tail[-22:-18] == b"PK\x05\x06" and tail[-2:] == b"\0\0" else tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise UploadRejected("not_an_archive", NO_ARCHIVE)
    entries, size = struct.unpack("<HL", tail[at + 10 : at + 16])
    locator = tail[max(0, at - 20) : at]
    if locator[:4] == b"PK\x06\x07" and len(locator) == 20:
        file.seek(min(length, struct.unpack("<Q", locator[8:16])[0]))
        record = file.read(56)
        # Behind what some programs put before an archive, the record stands right before its locator.
        if record[:4] != b"PK\x06\x06":
            file.seek(max(0, length - tail_length + at - 20 - 56))
            record = file.read(56)
        if record[:4] != b"PK\x06\x06" or len(record) < 56:
            raise UploadRejected("not_an_archive", NO_ARCHIVE)
        entries = max(entries if entries != 0xFFFF else 0, struct.unpack("<Q", record[32:40])[0])
        size = max(size if size != 0xFFFFFFFF else 0, struct.unpack("<Q", record[40:48])[0])
    return entries, size


def require_within_limits(members: Sequence[zipfile.ZipInfo], archive_bytes: int) -> None:
    """Raises UploadRejected for what is wrong with the archive as a whole."""
    if len(members) > settings.MAX_ARCHIVE_MEMBERS:
        raise too_many_members(len(members))
    if any(member.flag_bits & 0x1 for member in members):
        message = "The archive is encrypted. Pack the pictures again without a password and send that archive."
        raise UploadRejected("encrypted_archive", message)
    unpacked = sum(member.file_size for member in members)
    if unpacked > settings.MAX_ARCHIVE_UNPACKED_BYTES:
        limit = filesizeformat(settings.MAX_ARCHIVE_UNPACKED_BYTES)
        message = f"The archive unpacks to {filesizeformat(unpacked)}; at most {limit} are accepted. Split it."
        raise UploadTooLarge("archive_unpacks_too_large", message)
    if unpacked > settings.MAX_ARCHIVE_RATIO * max(archive_bytes, 1):
        message = (
            f"The archive unpacks to more than {settings.MAX_ARCHIVE_RATIO} times its size, as pictures never do. "
            "Pack the pictures again."
        )
        raise UploadTooLarge("archive_ratio", message)


def too_many_members(count: int) -> UploadTooLarge:
    limit = settings.MAX_ARCHIVE_MEMBERS
    return UploadTooLarge(
        "too_many_members", f"The archive holds {count:,} files; at most {limit:,} are accepted. Split it."
    )


def is_ignored(name: str) -> bool:
    """Folders, what systems add by themselves, and labels.csv: nothing to judge and nothing to say."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.endswith("/") or not parts:
        return True
    if IGNORED_FOLDERS & {part.lower() for part in parts}:
        return True
    return parts[-1].lower() in IGNORED_NAMES or parts[-1].startswith("._") or is_labels(name)


def is_labels(name: str) -> bool:
    """Whether it is the labels.csv of the submission: at the top, or in the one folder that was packed."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return 1 <= len(parts) <= 2 and parts[-1].lower() == LABELS_FILE


def content_of(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The bytes of one file of the archive, at most one more than a picture may have.

    Raises UploadRejected: unsafe_name, not_a_file, nested_archive (415), file_too_large (413), unsupported_compression
    (415), damaged_member.
    """
    require_ordinary(member)
    limit = settings.MAX_IMAGE_BYTES
    if member.file_size > limit:
        raise UploadTooLarge(
            "file_too_large",
            f"The file has {filesizeformat(member.file_size)}; at most {filesizeformat(limit)} are accepted. "
            "Export it smaller.",
        )
    try:
        with archive.open(member) as stored:
            # One byte more than it declares: the checksum is compared at the end only.
            content = stored.read(limit + 1)
    except NotImplementedError as error:
        raise unknown_method() from error
    except DAMAGE as error:
        raise UploadRejected("damaged_member", DAMAGED) from error
    if content.startswith(ARCHIVE_STARTS):
        raise nested_archive()
    return content


def require_ordinary(member: zipfile.ZipInfo) -> None:
    """Raises UploadRejected for a member that is no ordinary file with an ordinary name."""
    name = member.filename.replace("\\", "/")
    if len(name) > MAX_NAME:
        message = f"The file's name is longer than {MAX_NAME:,} characters. Shorten it and pack the archive again."
        raise UploadRejected("unsafe_name", message)
    if name.startswith("/") or ".." in name.split("/") or name[1:2] == ":" or "\0" in member.orig_filename:
        message = "The file's name leads out of the archive's own folder. Rename it and pack the archive again."
        raise UploadRejected("unsafe_name", message)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if member.create_system == 3 and kind not in (0, stat.S_IFREG):
        raise UploadRejected("not_a_file", "This is a link, not a file. Pack the picture itself.")
    if name.lower().endswith(ARCHIVE_ENDINGS):
        raise nested_archive()
    if member.compress_type not in KNOWN_METHODS:
        raise unknown_method()


def nested_archive() -> UnsupportedFormat:
    message = "An archive inside the archive is not opened. Put its pictures into the archive itself."
    return UnsupportedFormat("nested_archive", message)


def unknown_method() -> UnsupportedFormat:
    message = "The file is packed in a way that is not opened here. Pack it again as an ordinary ZIP (method Deflate)."
    return UnsupportedFormat("unsupported_compression", message)


def labels_of(archive: zipfile.ZipFile) -> Labels:
    """What the archive's own labels.csv says; nothing where it has none."""
    found = sorted(
        (member for member in archive.infolist() if is_labels(member.filename) and not member.is_dir()),
        key=lambda member: member.filename.count("/"),
    )
    if not found:
        return Labels({}, [])
    if found[0].file_size > MAX_LABELS_BYTES:
        return Labels({}, [(1, "labels_unreadable", "The file labels.csv is larger than 4 MB, so it is not used.")])
    if found[0].compress_type not in KNOWN_METHODS:
        return Labels({}, [(1, "labels_unreadable", unknown_method().message)])
    try:
        with archive.open(found[0]) as stored:
            return read_labels(stored.read(MAX_LABELS_BYTES))
    except DAMAGE:
        return Labels({}, [(1, "labels_unreadable", DAMAGED)])


def read_labels(content: bytes) -> Labels:
    """The lines `file,label` of labels.csv, with or without that head; comma, semicolon or tab between them.

    There are no more files than MAX_ARCHIVE_MEMBERS, so what comes after as many lines is not read.
    """
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError:
        message = "The file labels.csv is not UTF-8 text, so it is not used. Save it as UTF-8."
        return Labels({}, [(1, "labels_unreadable", message)])
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    by_name: dict[str, str] = {}
    complaints: list[tuple[int, str, str]] = []
    try:
        for line, fields in enumerate(csv.reader(io.StringIO(text), delimiter=separator), start=1):
            # One more, for the head.
            if line > settings.MAX_ARCHIVE_MEMBERS + 1:
                message = (
                    f"The file labels.csv has more than {settings.MAX_ARCHIVE_MEMBERS:,} lines; the rest is left out."
                )
                complaints.append((line, "labels_too_long", message))
                break
            columns = [field.strip() for field in fields]
            if not any(columns) or (line == 1 and [column.lower() for column in columns[:2]] == ["file", "label"]):
                continue
            if complaint := note_label(by_name, columns):
                complaints.append((line, *complaint))
    except csv.Error:
        return Labels(
            {}, [(1, "labels_unreadable", "The file labels.csv could not be read as CSV, so it is not used.")]
        )
    return Labels(by_name, complaints)


def note_label(by_name: dict[str, str], columns: Sequence[str]) -> tuple[str, str] | None:
    """Keep one line; what is wrong with it, as (code, sentence)."""
    if len(columns) < 2 or not columns[0]:
        return "label_incomplete", "The line does not have a file and a label, so it is left out."
    name, said = plain_name(columns[0]), columns[1]
    try:
        label = slug_for_folder(said)
    except ValueError:
        known = ", ".join(CELL_TYPES)
        return "unknown_label", f"The label is no known cell type, so it is left out. Known: {known}."
    if by_name.setdefault(name, label) != label:
        return "label_twice", "The file has another label on an earlier line; that one counts."
    return None


def plain_name(name: str) -> str:
    """A name as two systems would write it alike."""
    return normalize("NFC", name.replace("\\", "/").removeprefix("./"))


def label_for(labels: Labels, name: str) -> tuple[str, str]:
    """(key in labels.csv, label) of a member: by its whole path, or by the end of it; ("", "") where it has none."""
    if not labels.by_name or len(name) > MAX_NAME:
        return "", ""
    key = plain_name(name)
    while key not in labels.by_name:
        _, slash, key = key.partition("/")
        if not slash:
            return "", ""
    return key, labels.by_name[key]
