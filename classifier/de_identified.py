"""Reviewed pictures for teaching and research, in a ZIP that names no patient, no case and no reader.

Pictures bear random numbers that are made for this one export; what they are made from is forgotten when it is
finished. Times are months. The pictures themselves are as they are stored, without any metadata.

A slice appends finished entries to the file, and the last one the table and the directory: so a file that is cut back
to an earlier slice is whole up to there. What was voided, removed or reviewed again meanwhile is taken out in the end.
"""

import csv
import hmac
import io
import json
import os
import struct
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import IO, Any
from uuid import UUID
from zlib import crc32

from django.db.models import Count, F, QuerySet, Sum
from django.db.models.functions import Coalesce

from classifier.desk_filters import PICTURE_FILTERS, cleaned, narrowed
from classifier.errors import InvalidInput
from classifier.export_kinds import ExportWriter, Slice
from classifier.models import CaseStatus, CellImage, Export, Verdict

CHUNK = 200
# What the last slice can read once more, and hash, in a small part of the time that a task has.
MOST_PICTURES, MOST_BYTES = 20_000, 4 * 1024**3
# The oldest date that a ZIP can say: the true one would tell when a picture came.
NO_DATE = (1980, 1, 1, 0, 0, 0)
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
TABLE, README = "reviews.csv", "README.txt"
COLUMNS = (
    "image", "file", "case", "month", "cell_type", "verdict", "reader", "model", "model_label", "model_suggestion",
    "confidence", "abstained", "probabilities",
)  # fmt: skip
ABOUT = """De-identified pictures and reviews from HematoVision.

images/<cell type>/   the pictures, in folders by what a person said that they show
unusable/             pictures that a person found unusable
reviews.csv           a line a picture

Numbers of images, cases and readers are random and belong to this file alone. `month` is when the picture came (UTC).
`verdict` is the person's, `model_label` what the model said before (empty where it abstained), `confidence` and
`probabilities` are fractions. Pictures that were void, removed under a retention rule, or reviewed again before this
file was finished are left out.

No name, number, date of a patient or free text is in here, and the pictures carry no metadata. Whoever holds the
originals can still match them by their pixels, and a rare picture may be known to somebody: hand this on only to those
who promise not to try. HematoVision is not a medical device.
"""


def clean(filters: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The filters as they are kept; what is empty narrows nothing. Raises InvalidInput (unknown_filter)."""
    return cleaned(PICTURE_FILTERS, {name: values for name, values in filters.items() if values and values[-1]})


def pictures_of(export: Export) -> QuerySet[CellImage]:
    """The reviewed images of the laboratory that were there when the export was asked for."""
    reviewed = CellImage.objects.filter(
        case__laboratory=export.laboratory_id,
        current_review__created_at__lte=export.requested_at,
        void=None,
        removed_picture=None,
    ).exclude(case__status=CaseStatus.VOID)
    return narrowed(reviewed, PICTURE_FILTERS, export.filters).order_by()


def total(export: Export) -> int:
    return int(pictures_of(export).count())


def require_fits(export: Export) -> None:
    """Raises InvalidInput (export_too_large)."""
    size = pictures_of(export).aggregate(pictures=Count("pk"), bytes=Coalesce(Sum("stored_bytes"), 0))
    if size["pictures"] > MOST_PICTURES or size["bytes"] > MOST_BYTES:
        message = (
            f"These are {size['pictures']:,} pictures with {size['bytes'] / 1024**3:.1f} GiB. One file holds "
            f"{MOST_PICTURES:,} and {MOST_BYTES / 1024**3:.0f} GiB: ask for less, by cell type or days."
        )
        raise InvalidInput("export_too_large", message)


def number_of(salt: str, what: str, key: object) -> str:
    """The random number of a thing in this export: 12 hexadecimal digits."""
    return hmac.digest(bytes.fromhex(salt), f"{what} {key}".encode(), "sha256").hex()[:12]


def write(export: Export, path: Path, ends: float) -> Slice:
    """Append pictures until the time is over; the last slice adds the table and closes the archive."""
    position = export.position or {"salt": token_hex(32), "after": None}
    salt, rows = position["salt"], 0
    with path.open("ab") as archive:
        while True:
            chunk = pictures_after(export, position["after"])
            for image in chunk:
                rows += append_picture(archive, salt, image)
                position = {"salt": salt, "after": str(image.pk)}
                if time.monotonic() > ends:
                    return Slice(rows, position)
            if not chunk:
                break
    return Slice(rows - finish(export, path, salt), None)


def pictures_after(export: Export, after: str | None) -> list[CellImage]:
    images = pictures_of(export).select_related("current_review").only("file", "current_review__final_label")
    if after:
        images = images.filter(pk__gt=UUID(after))
    return list(images.order_by("pk")[:CHUNK])


def name_in_archive(salt: str, image: UUID, label: str, file: str) -> str:
    folder = f"images/{label}" if label else "unusable"
    return f"{folder}/{number_of(salt, 'image', image)}.{file.rsplit('.', 1)[-1]}"


def append_picture(archive: IO[bytes], salt: str, image: CellImage) -> int:
    """Append one picture as an entry of the archive; returns 0 where its file is gone by now."""
    assert image.current_review is not None  # noqa: S101 (only reviewed images are looked at)
    try:
        with image.file.open("rb") as stored:
            content = stored.read()
    except FileNotFoundError:
        return 0
    name = name_in_archive(salt, image.pk, image.current_review.final_label, str(image.file.name))
    entry = entry_of(name, crc32(content), len(content))
    archive.write(entry.FileHeader(zip64=False) + content)
    return 1


def entry_of(name: str, crc: int, size: int) -> zipfile.ZipInfo:
    """What the archive's directory says of a picture, which is stored as it is."""
    entry = zipfile.ZipInfo(name, NO_DATE)
    entry.CRC, entry.file_size, entry.compress_size = crc, size, size
    entry.external_attr = 0o600 << 16
    return entry


def finish(export: Export, path: Path, salt: str) -> int:
    """Take out what may be handed on no more, and add the table, the text and the directory.

    Returns how many pictures were taken out.
    """
    lines = {str(line["file"]): line for line in (line_of(salt, row) for row in rows_of(export))}
    with path.open("r+b") as file:
        appended = list(entries_in(file))
        entries = {entry.filename: entry for entry in appended if entry.filename in lines}
        for entry in appended:
            if entry.filename not in entries:
                blank(file, entry)
        # Not opened to be appended to: that looks for a directory at the end, and what stands there is a picture.
        file.seek(0, os.SEEK_END)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            # The entries are in the file; only its directory has not heard of them yet.
            archive.filelist.extend(entries.values())
            archive.NameToInfo.update(entries)
            for name, text in ((TABLE, table_of(lines[name] for name in entries)), (README, ABOUT)):
                entry = zipfile.ZipInfo(name, NO_DATE)
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o600 << 16
                archive.writestr(entry, text)
        file.flush()
        os.fsync(file.fileno())
    return len(appended) - len(entries)


def blank(archive: IO[bytes], entry: zipfile.ZipInfo) -> None:
    """Overwrite a picture with noughts, its name too. The entry stays whole, and no directory names it."""
    content = bytes(entry.file_size)
    nameless = entry_of("0" * len(entry.filename), crc32(content), entry.file_size)
    archive.seek(entry.header_offset)
    archive.write(nameless.FileHeader(zip64=False) + content)


def entries_in(archive: IO[bytes]) -> Iterator[zipfile.ZipInfo]:
    """The pictures that were appended, by walking over them."""
    offset = 0
    while header := archive.read(LOCAL_HEADER.size):
        _, _, _, _, _, _, crc, size, _, name_length, extra_length = LOCAL_HEADER.unpack(header)
        entry = entry_of(archive.read(name_length).decode(), crc, size)
        entry.header_offset = offset
        offset = archive.seek(extra_length + size, os.SEEK_CUR)
        yield entry


def table_of(lines: Iterable[dict[str, object]]) -> str:
    """A line a picture, in the order of their random numbers."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(sorted(lines, key=lambda line: str(line["image"])))
    return text.getvalue()


def rows_of(export: Export) -> Any:
    return pictures_of(export).values(
        "pk",
        "file",
        "case",
        "uploaded_at",
        label=F("current_review__final_label"),
        verdict=F("current_review__verdict"),
        reader=F("current_review__reader"),
        model_name=F("current_review__prediction__model_version__name"),
        model_number=F("current_review__prediction__model_version__version"),
        said=F("current_review__prediction__label"),
        guess=F("current_review__prediction__suggestion"),
        confidence=F("current_review__prediction__confidence"),
        abstained=F("current_review__prediction__abstained"),
        probabilities=F("current_review__prediction__probabilities"),
    )


def line_of(salt: str, row: Mapping[str, Any]) -> dict[str, object]:
    modelled = row["model_name"] is not None
    return {
        "image": number_of(salt, "image", row["pk"]),
        "file": name_in_archive(salt, row["pk"], row["label"], row["file"]),
        "case": number_of(salt, "case", row["case"]),
        "month": f"{row['uploaded_at']:%Y-%m}",
        "cell_type": row["label"],
        "verdict": Verdict(row["verdict"]).value,
        "reader": number_of(salt, "reader", row["reader"]),
        "model": f"{row['model_name']} {row['model_number']}" if modelled else "",
        "model_label": row["said"] or "",
        "model_suggestion": row["guess"] or "",
        "confidence": row["confidence"] if modelled else "",
        "abstained": str(bool(row["abstained"])).lower() if modelled else "",
        "probabilities": json.dumps(row["probabilities"], sort_keys=True) if modelled else "",
    }


WRITER = ExportWriter("zip", clean, total, write, require_fits)
