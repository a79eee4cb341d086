"""Reviewed pictures for teaching and research, in a ZIP that names no patient, no case and no reader.

Pictures bear random numbers that are made for this one export; what they are made from is forgotten when it is
finished. Times are months. The pictures themselves are as they are stored, without any metadata.

A slice appends finished entries to the file, and the last one the table and the directory: so a file that is cut back
to an earlier slice is whole up to there.
"""

import csv
import hmac
import io
import json
import os
import struct
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import IO, Any
from uuid import UUID
from zlib import crc32

from django.core.files.storage import default_storage
from django.db.models import F, QuerySet

from classifier.desk_filters import PICTURE_FILTERS, cleaned, narrowed
from classifier.export_kinds import ExportWriter, Slice
from classifier.models import CaseStatus, CellImage, Export, Verdict

CHUNK = 200
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
`probabilities` are fractions. Pictures that are void, or were removed under a retention rule, are left out.

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
    finish(export, path, salt)
    return Slice(rows, None)


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
        content = Path(default_storage.path(str(image.file.name))).read_bytes()
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


def finish(export: Export, path: Path, salt: str) -> None:
    """Add the table, the text and the directory."""
    with path.open("rb") as archive:
        entries = list(entries_in(archive))
    with zipfile.ZipFile(path, "a" if entries else "w", zipfile.ZIP_DEFLATED) as archive:
        # The entries are in the file; only its directory has not heard of them yet.
        archive.filelist.extend(entries)
        archive.NameToInfo.update({entry.filename: entry for entry in entries})
        for name, text in ((TABLE, table_of(export, salt, set(archive.NameToInfo))), (README, ABOUT)):
            entry = zipfile.ZipInfo(name, NO_DATE)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o600 << 16
            archive.writestr(entry, text)
    with path.open("rb") as written:
        os.fsync(written.fileno())


def entries_in(archive: IO[bytes]) -> Iterator[zipfile.ZipInfo]:
    """The pictures that were appended, by walking over them."""
    offset = 0
    while header := archive.read(LOCAL_HEADER.size):
        _, _, _, _, _, _, crc, size, _, name_length, extra_length = LOCAL_HEADER.unpack(header)
        entry = entry_of(archive.read(name_length).decode(), crc, size)
        entry.header_offset = offset
        offset = archive.seek(extra_length + size, os.SEEK_CUR)
        yield entry


def table_of(export: Export, salt: str, names: set[str]) -> str:
    """A line a picture that is in the archive, in the order of its random number."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    lines = (line_of(salt, row) for row in rows_of(export).iterator(chunk_size=2000))
    writer.writerows(sorted((line for line in lines if line["file"] in names), key=lambda line: str(line["image"])))
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


WRITER = ExportWriter("zip", clean, total, write)
