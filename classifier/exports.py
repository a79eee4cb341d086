"""The kinds of exports, who sees them, how far they are, and the links by which their files are fetched.

A table is written in the order of its rows' times, slice by slice. It holds ids, codes, times and numbers: no accession
number, no pseudonym, no file name and no comment.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from json import dumps
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.signing import BadSignature, TimestampSigner
from django.db.models import Case, F, Q, QuerySet, Value, When
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from accounts.models import AuditEvent, User
from accounts.roles import Verb
from classifier import de_identified
from classifier.csv_stream import streamed
from classifier.desk_filters import FILTERS, cleaned, narrowed
from classifier.export_kinds import ExportWriter, Slice
from classifier.models import CaseStatus, Export, ExportKind, ExportState, Prediction, Review
from classifier.querysets import visible_to

CHUNK = 2000  # rows a query
LINK_SECONDS = 600
Row = dict[str, Any]


def exports_of(user: User) -> QuerySet[Export]:
    """The exports of the auditor's laboratory, the newest first; nobody else has any."""
    rows = Export.objects.filter(visible_to(user, "laboratory")).select_related("requested_by")
    return rows if user.may(Verb.AUDIT) else rows.none()


# --- Tables ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """One kind of table: its rows of a laboratory, in which column their time stands, and what a line is made of.

    `fields` and `values` are read from the database, `line` makes a line of `columns` from them.
    """

    kind: str
    rows: Callable[[], QuerySet[Any]]
    laboratory: str
    at: str
    columns: tuple[str, ...]
    fields: tuple[str, ...]
    values: Mapping[str, Any]
    line: Callable[[Row], Row]


def rows_of(table: Table, export: Export) -> QuerySet[Any]:
    """All rows of the export that were there when it was asked for, in no order."""
    own = table.rows().filter(**{table.laboratory: export.laboratory_id, f"{table.at}__lte": export.requested_at})
    return narrowed(own, FILTERS[table.kind], export.filters).order_by()


def total_of(table: Table, export: Export) -> int:
    return int(rows_of(table, export).count())


def write_table(table: Table, export: Export, path: Path, ends: float) -> Slice:
    """Append lines until the time is over: a chunk at least, and never more of them in memory than a chunk has."""
    position, rows = export.position, 0
    with path.open("ab") as file:
        if position is None:
            file.writelines(streamed(table.columns, ()))
        while True:
            chunk = chunk_after(table, export, position)
            file.writelines(lines_of(table, chunk))
            rows += len(chunk)
            position = [chunk[-1][table.at].isoformat(), str(chunk[-1]["id"])] if len(chunk) == CHUNK else None
            if position is None or time.monotonic() > ends:
                break
        file.flush()
        os.fsync(file.fileno())
    return Slice(rows, position)


def chunk_after(table: Table, export: Export, position: Sequence[str] | None) -> list[Row]:
    """The next rows by time and id."""
    rows = rows_of(table, export)
    if position:
        moment, pk = parse_datetime(position[0]), UUID(position[1])
        # The first condition says nothing new; it is what an index can begin at.
        rows = rows.filter(**{f"{table.at}__gte": moment}).filter(
            Q(**{f"{table.at}__gt": moment}) | Q(**{table.at: moment, "id__gt": pk})
        )
    return list(rows.order_by(table.at, "id").values("id", table.at, *table.fields, **table.values)[:CHUNK])


def lines_of(table: Table, chunk: Sequence[Row]) -> Iterator[bytes]:
    lines = streamed(table.columns, map(table.line, chunk))
    # The head stands in the file already.
    next(lines)
    return lines


def as_time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def is_void(image: str) -> Case:
    """Whether the image or its case was entered in error."""
    void = Q(**{f"{image}__void__isnull": False}) | Q(**{f"{image}__case__status": CaseStatus.VOID})
    return Case(When(void, then=Value("true")), default=Value("false"))


def prediction_line(row: Row) -> Row:
    # A review of another model's prediction says nothing of this one.
    about_it = row["reviewed_prediction"] == row["id"]
    return {
        **row,
        **({} if about_it else {"verdict": "", "final_label": "", "reader_id": ""}),
        "prediction_id": row["id"],
        "created_at": as_time(row["created_at"]),
        "model": f"{row['model_name']} {row['model_number']}",
        "abstained": str(bool(row["abstained"])).lower(),
        "conformal_set": " ".join(row["conformal_set"]),
    }


def review_line(row: Row) -> Row:
    return {
        **row,
        "review_id": row["id"],
        "created_at": as_time(row["created_at"]),
        "counts": str(row["counting"] == row["id"]).lower(),
        "model": f"{row['model_name']} {row['model_number']}" if row["model_name"] else "",
    }


def audit_event_line(row: Row) -> Row:
    facts = dumps(row["facts"], sort_keys=True, separators=(",", ":"))
    return {**row, "event_id": row["id"], "at": as_time(row["at"]), "facts": facts}


PREDICTIONS = Table(
    kind=ExportKind.PREDICTIONS,
    rows=Prediction.objects.all,
    laboratory="laboratory",
    at="created_at",
    columns=(
        "prediction_id", "created_at", "case_id", "image_id", "model", "model_sha256", "label", "suggestion",
        "confidence", "abstained", "reason_code", "conformal_set", "ood_score", "duration_ms", "image_status",
        "entered_in_error", "verdict", "final_label", "reader_id", "uploaded_by_id",
    ),
    fields=(
        "image_id", "label", "suggestion", "confidence", "abstained", "reason_code", "conformal_set", "ood_score",
        "duration_ms",
    ),
    values={
        "case_id": F("image__case"),
        "model_name": F("model_version__name"),
        "model_number": F("model_version__version"),
        "model_sha256": F("model_version__sha256"),
        "image_status": F("image__status"),
        "entered_in_error": is_void("image"),
        "reviewed_prediction": F("image__current_review__prediction"),
        "verdict": F("image__current_review__verdict"),
        "final_label": F("image__current_review__final_label"),
        "reader_id": F("image__current_review__reader"),
        "uploaded_by_id": F("image__uploaded_by"),
    },
    line=prediction_line,
)  # fmt: skip
REVIEWS = Table(
    kind=ExportKind.REVIEWS,
    rows=Review.objects.all,
    laboratory="laboratory",
    at="created_at",
    columns=(
        "review_id", "created_at", "case_id", "image_id", "reader_id", "verdict", "final_label", "counts",
        "previous_id", "prediction_id", "model_label", "model_confidence", "model", "entered_in_error",
    ),
    fields=("image_id", "reader_id", "verdict", "final_label", "previous_id", "prediction_id"),
    values={
        "case_id": F("image__case"),
        "counting": F("image__current_review"),
        "model_label": F("prediction__label"),
        "model_confidence": F("prediction__confidence"),
        "model_name": F("prediction__model_version__name"),
        "model_number": F("prediction__model_version__version"),
        "entered_in_error": is_void("image"),
    },
    line=review_line,
)  # fmt: skip
AUDIT_EVENTS = Table(
    kind=ExportKind.AUDIT_EVENTS,
    rows=AuditEvent.objects.all,
    laboratory="laboratory",
    at="at",
    columns=(
        "event_id", "at", "actor_id", "laboratory_id", "action", "target_type", "target_id", "facts", "ip",
        "request_id",
    ),
    fields=("actor_id", "laboratory_id", "action", "target_type", "target_id", "facts", "ip", "request_id"),
    values={},
    line=audit_event_line,
)  # fmt: skip


def table_writer(table: Table) -> ExportWriter:
    return ExportWriter(
        extension="csv",
        clean=partial(cleaned, FILTERS[table.kind]),
        total=partial(total_of, table),
        write=partial(write_table, table),
    )


# Every kind of export and how it is written.
WRITERS: dict[str, ExportWriter] = {table.kind: table_writer(table) for table in (PREDICTIONS, REVIEWS, AUDIT_EVENTS)}
WRITERS[ExportKind.DE_IDENTIFIED] = de_identified.WRITER


# --- Progress --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExportProgress:
    """`written` of `total` rows (None: not counted yet); rows a second and the seconds left, None where unknown."""

    written: int
    total: int | None
    rows_per_second: float | None
    seconds_left: int | None


def progress_of(export: Export) -> ExportProgress:
    rate: float | None = None
    left: int | None = None
    if export.started_at and export.rows_written:
        took = ((export.finished_at or timezone.now()) - export.started_at).total_seconds()
        rate = export.rows_written / max(took, 0.1)
    if export.state == ExportState.WRITING and rate and export.rows_total is not None:
        left = math.ceil(max(0, export.rows_total - export.rows_written) / rate)
    return ExportProgress(export.rows_written, export.rows_total, rate, left)


# --- Links -----------------------------------------------------------------------------------------------------

signer = TimestampSigner(salt="classifier.exports")


def link_key(export: Export, user: User) -> str:
    """What opens the file for ten minutes, and for this person only."""
    return signer.sign(f"{export.pk}.{user.pk}").split(":", 1)[1]


def opens(key: str, export: Export, user: User) -> bool:
    """Whether the key is one of this export, made for this user within the last ten minutes."""
    try:
        signer.unsign(f"{export.pk}.{user.pk}:{key}", max_age=LINK_SECONDS)
    except BadSignature:
        return False
    return True
