"""Exports: asked for by an auditor, written by the worker in slices, fetched by a link that does not last."""

import csv
import io
import os
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from django.core.signing import TimestampSigner, b62_decode, b62_encode
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import AuditEvent, Laboratory, User
from accounts.roles import Role
from classifier import export_steps, exports, services, tasks
from classifier.errors import Conflict, HematoVisionError, InvalidInput, NotAllowed
from classifier.exports import LINK_SECONDS, exports_of, link_key, progress_of
from classifier.models import CellImage, Export, ExportState, ModelVersion, Prediction, Review
from tests.conftest import person
from tests.factories import prediction_of

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]


@pytest.fixture
def lines_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, str]]]:
    """Asks for an export, lets the worker finish it, and reads its lines."""

    def read(actor: User, kind: str, **filters: str) -> list[dict[str, str]]:
        export = services.request_export(actor=actor, kind=kind, filters={name: [v] for name, v in filters.items()})
        write_all()
        export.refresh_from_db()
        return lines(export)

    return read


def write_all() -> int:
    """What a worker does as long as there is something to write; returns how many slices it took."""
    slices = 0
    while export_steps.continue_export():
        slices += 1
    return slices


def lines(export: Export) -> list[dict[str, str]]:
    assert export.state == ExportState.READY
    with export.file.open("rb") as file:
        return list(csv.DictReader(io.StringIO(file.read().decode("utf-8-sig"), newline="")))


def events(laboratory: Laboratory, actor: User, n: int, **fields: Any) -> None:
    usual = {"action": "case_opened", "actor": actor, "laboratory": laboratory, "target_type": "case"}
    AuditEvent.objects.bulk_create(
        [AuditEvent(**{**usual, "target_id": str(uuid4()), **fields}) for _ in range(n)], batch_size=2000
    )


def many_events(laboratory: Laboratory, actor: User, n: int) -> None:
    """Events by plain SQL, which is many times as fast as by their model."""
    columns = "id, at, actor_id, laboratory_id, action, target_type, target_id, facts, request_id"
    values = "'case_opened', 'case', '0123456789abcdef0123456789abcdef', '{}', ''"
    if connection.vendor == "postgresql":
        at = "now() - interval '1 hour' + n * interval '1 microsecond'"
        source = f"SELECT gen_random_uuid(), {at}, %s, %s, {values} FROM generate_series(1, %s) AS n"
        given: list[Any] = [actor.pk, laboratory.pk, n]
    else:
        numbers = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < %s)"
        at = "strftime('%%Y-%%m-%%d %%H:%%M:%%S', 'now', '-1 hour') || printf('.%%06d', n)"
        source = f"{numbers} SELECT lower(hex(randomblob(16))), {at}, %s, %s, {values} FROM numbers"
        given = [n, actor.pk.hex, laboratory.pk.hex]
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO accounts_auditevent ({columns}) {source}", given)


@pytest.fixture
def read_image(make_image: MakeImage, model_version: ModelVersion, reader: User) -> Callable[..., Prediction]:
    """A classified image that a reader has reviewed."""

    def make(said: str = "lymphocyte", final: str = "lymphocyte", **fields: Any) -> Prediction:
        image = make_image("classified")
        about = {"label": said} if said else {"label": "", "abstained": True, "reason": "?", "reason_code": "not_sure"}
        prediction = prediction_of(image, model_version, **{**about, **fields})
        verdict = "CONFIRMED" if said == final else "CORRECTED"
        services.review_image(
            actor=reader, image=image, verdict=verdict, final_label=final if verdict == "CORRECTED" else ""
        )
        return prediction

    return make


# --- What is in them -------------------------------------------------------------------------------------------


def test_table_of_predictions_says_what_model_and_reader_said(
    lines_of: Any, auditor: User, reader: User, technologist: User, read_image: Any
) -> None:
    prediction = read_image("lymphocyte", "monocyte")

    (line,) = lines_of(auditor, "predictions")

    image = prediction.image
    assert tuple(line) == exports.PREDICTIONS.columns
    assert (line["prediction_id"], line["image_id"], line["case_id"]) == (
        str(prediction.pk), str(image.pk), str(image.case_id)
    )  # fmt: skip
    assert (line["label"], line["verdict"], line["final_label"]) == ("lymphocyte", "CORRECTED", "monocyte")
    assert (line["reader_id"], line["uploaded_by_id"]) == (str(reader.pk), str(technologist.pk))
    assert (line["abstained"], line["confidence"], line["conformal_set"]) == ("false", "0.92", "lymphocyte")
    assert line["model"] == str(prediction.model_version)
    assert line["entered_in_error"] == "false"


def test_prediction_of_an_older_model_has_no_verdict_of_its_own(
    lines_of: Any, auditor: User, read_image: Any, model_version: ModelVersion
) -> None:
    reviewed = read_image()
    other = ModelVersion.objects.create(
        name="other", version="0", sha256="0" * 64, labels=["lymphocyte", "monocyte"], preprocessing_version="1"
    )
    older = prediction_of(reviewed.image, other)

    by_id = {line["prediction_id"]: line for line in lines_of(auditor, "predictions")}

    assert by_id[str(reviewed.pk)]["verdict"] == "CONFIRMED"
    assert {by_id[str(older.pk)][name] for name in ("verdict", "final_label", "reader_id")} == {""}


def test_table_of_reviews_tells_which_one_counts(lines_of: Any, auditor: User, reader: User, read_image: Any) -> None:
    prediction = read_image()
    first = Review.objects.get()
    second = services.review_image(
        actor=reader, image=prediction.image, verdict="CORRECTED", final_label="monocyte", comment="=secret"
    )

    found = lines_of(auditor, "reviews")

    assert [(line["review_id"], line["counts"]) for line in found] == [
        (str(first.pk), "false"), (str(second.pk), "true")
    ]  # fmt: skip
    assert (found[1]["model_label"], found[1]["final_label"]) == ("lymphocyte", "monocyte")
    assert found[1]["previous_id"] == str(first.pk)
    assert not any("secret" in value for line in found for value in line.values())


def test_table_of_audit_events_has_the_columns_of_the_trail(lines_of: Any, auditor: User, case: Any) -> None:
    event = AuditEvent.objects.get(action="case_opened")

    by_id = {line["event_id"]: line for line in lines_of(auditor, "audit_events")}

    line = by_id[str(event.pk)]
    assert (line["action"], line["target_type"], line["target_id"]) == ("case_opened", "case", str(case.pk))
    assert line["facts"].startswith("{")
    # The wish itself is older than what it asks for.
    assert "export_requested" not in {line["action"] for line in by_id.values()}


def test_no_cell_is_taken_for_a_formula(lines_of: Any, auditor: User, laboratory: Laboratory) -> None:
    for text in ("=1+1", "+1", "-1", "@x", "\t=1"):
        events(laboratory, auditor, 1, request_id=text)

    found = lines_of(auditor, "audit_events")

    assert {line["request_id"] for line in found if line["request_id"]} == {"'=1+1", "'+1", "'-1", "'@x", "'\t=1"}


def test_no_patient_text_is_in_any_table(
    lines_of: Any, auditor: User, technologist: User, model_version: ModelVersion, make_image: MakeImage, reader: User
) -> None:
    case = services.open_case(actor=technologist, accession_number="PHI-1", patient_pseudonym="PHI-2")
    image = make_image("classified", case=case, name="PHI-3.jpg")
    prediction_of(image, model_version)
    services.review_image(actor=reader, image=image, verdict="CONFIRMED", comment="PHI-4")

    for kind in ("predictions", "reviews", "audit_events"):
        assert "PHI" not in str(lines_of(auditor, kind))


def test_other_laboratory_is_in_no_table(
    lines_of: Any, read_image: Any, other_laboratory: Laboratory, auditor: User
) -> None:
    read_image()
    theirs = person("olga@south.example", "Olga", other_laboratory, Role.AUDITOR)

    for kind in ("predictions", "reviews"):
        assert lines_of(theirs, kind) == []
        assert len(lines_of(auditor, kind)) == 1
    assert {line["laboratory_id"] for line in lines_of(theirs, "audit_events")} == {str(other_laboratory.pk)}


# --- Filters ---------------------------------------------------------------------------------------------------

FILTERS_TO_TRY = {
    "predictions": [
        {"said": "lymphocyte"}, {"said": "unidentified"}, {"reading": "agreed"}, {"reading": "overridden"},
        {"reading": "identified"}, {"reading": "unusable"}, {"reading": "unread"}, {"abstained": "yes"},
        {"abstained": "no"}, {"confidence": "from-99"}, {"confidence": "50-70"}, {"final": "monocyte"},
        {"void": "yes"}, {"void": "no"}, {"reason": "not_sure"}, {"from": "2020-01-01", "to": "2020-12-31"},
        {"from": "2020-01-01"}, {"reading": "overridden", "void": "no"}, {"suggested": "lymphocyte"}, {},
    ],
    "reviews": [
        {"verdict": "CORRECTED"}, {"reading": "overridden"}, {"reading": "agreed"}, {"reading": "identified"},
        {"reading": "unusable"}, {"said": "unidentified"}, {"final": "monocyte"}, {"counts": "yes"}, {"counts": "no"},
        {"void": "yes"}, {"to": "2020-12-31"}, {},
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(FILTERS_TO_TRY))
def test_export_holds_the_rows_of_the_list_it_was_asked_from(
    kind: str,
    lines_of: Any,
    sign_in: SignIn,
    auditor: User,
    reader: User,
    technologist: User,
    read_image: Any,
    make_image: MakeImage,
    model_version: ModelVersion,
) -> None:
    read_image()
    read_image(confidence=0.999)
    voided = read_image("lymphocyte", "monocyte", confidence=0.6)
    read_image("lymphocyte", "monocyte", confidence=0.61)
    read_image("", "monocyte")
    prediction_of(make_image("classified"), model_version)
    unusable = make_image("classified")
    prediction_of(unusable, model_version)
    services.review_image(actor=reader, image=unusable, verdict="UNUSABLE")
    services.review_image(actor=reader, image=unusable, verdict="WITHDRAWN")
    services.review_image(actor=reader, image=unusable, verdict="UNUSABLE")
    services.void_image(actor=reader, image=voided.image, reason="another patient")
    client = sign_in(auditor)
    people = {"reader": str(reader.pk)} if kind == "reviews" else {"uploader": str(technologist.pk)}
    models = {"model": str(model_version.pk)}
    sizes = set()

    for filters in (*FILTERS_TO_TRY[kind], people, models):
        page = client.get(reverse(f"admin:classifier_{kind[:-1]}_changelist"), filters)
        assert page.status_code == 200, filters
        listed = {str(row.pk) for row in page.context["cl"].result_list}
        exported = {line[f"{kind[:-1]}_id"] for line in lines_of(auditor, kind, **filters)}
        assert exported == listed, filters
        sizes.add(len(listed))

    # The filters do tell rows apart.
    assert len(sizes) > 3


@pytest.mark.parametrize(
    "filters",
    [
        {"q": ["Miller"]},
        {"image__case__accession_number": ["A-1"]},
        {"said": ["cat"]},
        {"from": ["yesterday"]},
        {"reader": ["x"]},
        {"confidence": []},
    ],
)
def test_what_is_no_filter_is_refused_and_not_ignored(filters: dict[str, list[str]], auditor: User) -> None:
    with pytest.raises(InvalidInput, match="unknown_filter"):
        services.request_export(actor=auditor, kind="predictions", filters=filters)
    assert not Export.objects.exists()


def test_kind_that_nobody_writes_is_refused(auditor: User) -> None:
    with pytest.raises(InvalidInput, match="unknown_export"):
        services.request_export(actor=auditor, kind="patients", filters={})


# --- Asking ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actor", ["technologist", "reader", "lab_admin", "service_account", "operator"])
def test_only_an_auditor_exports(actor: str, sign_in: SignIn, auditor: User, request: pytest.FixtureRequest) -> None:
    user = request.getfixturevalue(actor)
    export = ready(auditor)
    client = sign_in(user)

    with pytest.raises(NotAllowed):
        services.request_export(actor=user, kind="predictions", filters={})
    with pytest.raises(NotAllowed):
        services.withdraw_export(actor=user, export=export)
    with pytest.raises(NotAllowed):
        services.record_export_download(actor=user, export=export)
    assert not exports_of(user).exists()
    assert client.get(reverse("exports")).status_code == 403
    assert client.post(reverse("exports"), {"export_kind": "predictions"}).status_code == 403
    assert client.get(reverse("export-file", args=[export.pk]), {"key": link_key(export, user)}).status_code == 403
    assert client.post(reverse("export-withdraw", args=[export.pk])).status_code == 403


def test_wish_from_a_list_is_a_row_with_its_filters_and_is_in_the_trail(sign_in: SignIn, auditor: User) -> None:
    page = sign_in(auditor).post(
        reverse("exports"), {"export_kind": "predictions", "said": "lymphocyte", "p": "3", "o": "1"}, follow=True
    )

    export = Export.objects.get()
    assert (export.kind, export.filters, export.state) == ("predictions", {"said": ["lymphocyte"]}, "waiting")
    assert "What the model said: Lymphocyte" in page.content.decode()
    event = AuditEvent.objects.get(action="export_requested")
    assert (event.actor, event.target_id) == (auditor, str(export.pk))


def test_same_wish_twice_is_one(auditor: User) -> None:
    first = services.request_export(actor=auditor, kind="reviews", filters={})

    assert services.request_export(actor=auditor, kind="reviews", filters={}) == first
    assert services.request_export(actor=auditor, kind="reviews", filters={"counts": ["yes"]}) != first


def test_sixth_wish_that_waits_is_refused(auditor: User) -> None:
    for day in range(1, 6):
        services.request_export(actor=auditor, kind="reviews", filters={"from": [f"2026-01-0{day}"]})

    with pytest.raises(Conflict, match="too_many_exports"):
        services.request_export(actor=auditor, kind="reviews", filters={})


def test_withdrawn_wish_is_not_written_and_its_file_goes(
    auditor: User, sign_in: SignIn, laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    events(laboratory, auditor, 30)
    one_chunk_a_slice(monkeypatch)
    export = services.request_export(actor=auditor, kind="audit_events", filters={})
    assert export_steps.continue_export()
    export.refresh_from_db()
    path = Path(export.file.path)
    assert export.state == ExportState.WRITING
    assert path.exists()

    page = sign_in(auditor).post(reverse("export-withdraw", args=[export.pk]), follow=True)
    assert write_all() == 0
    export_steps.sweep_exports()

    export.refresh_from_db()
    assert "Withdrawn" in page.content.decode()
    assert (export.state, export.file.name, path.exists()) == (ExportState.WITHDRAWN, "", False)
    with pytest.raises(Conflict, match="export_finished"):
        services.withdraw_export(actor=auditor, export=export)


# --- Writing ---------------------------------------------------------------------------------------------------


def one_chunk_a_slice(monkeypatch: pytest.MonkeyPatch, chunk: int = 7) -> None:
    monkeypatch.setattr(exports, "CHUNK", chunk)
    monkeypatch.setattr(export_steps, "SLICE_SECONDS", -1)


def ready(auditor: User, kind: str = "reviews") -> Export:
    export = services.request_export(actor=auditor, kind=kind, filters={})
    write_all()
    export.refresh_from_db()
    return export


def test_table_is_written_in_slices_that_hold_every_row_once(
    auditor: User, laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    events(laboratory, auditor, 40)
    one_chunk_a_slice(monkeypatch)
    export = services.request_export(actor=auditor, kind="audit_events", filters={"action": ["case_opened"]})

    slices = write_all()

    export.refresh_from_db()
    found = lines(export)
    assert slices == 6
    assert len({line["event_id"] for line in found}) == len(found) == export.rows_written == export.rows_total == 40
    content = Path(export.file.path).read_bytes()
    assert (export.sha256, export.bytes_written) == (sha256(content).hexdigest(), len(content))
    assert export.position is None
    assert export.expires_at
    assert export.finished_at
    assert export.expires_at - export.finished_at == timedelta(days=7)
    event = AuditEvent.objects.get(action="export_finished")
    assert (event.actor, event.laboratory, event.facts["rows"]) == (None, laboratory, 40)


def test_fifty_thousand_rows_need_little_memory(auditor: User, laboratory: Laboratory) -> None:
    many_events(laboratory, auditor, 50_000)
    export = services.request_export(actor=auditor, kind="audit_events", filters={"action": ["case_opened"]})

    process = psutil.Process()
    assert export_steps.continue_export()
    before = most = process.memory_info().rss
    while export_steps.continue_export():
        most = max(most, process.memory_info().rss)

    export.refresh_from_db()
    assert export.rows_written == 50_000
    # Rows that were kept would take many times what they take in the file.
    assert most - before < export.bytes_written


def test_lost_claim_is_taken_up_where_it_counts_and_the_late_worker_changes_nothing(
    auditor: User, laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    events(laboratory, auditor, 30)
    one_chunk_a_slice(monkeypatch)
    services.request_export(actor=auditor, kind="audit_events", filters={"action": ["case_opened"]})
    assert export_steps.continue_export()
    late = export_steps.claim_export()
    assert late
    late_path = Path(late.file.path)
    # It has written lines that do not count yet when it stands still.
    with late_path.open("ab") as file:
        file.write(b"half a li")
    assert export_steps.continue_export() == 0
    Export.objects.update(claim_expires_at=Now() - timedelta(seconds=1))

    assert export_steps.continue_export()
    went_on = Export.objects.get()
    assert (went_on.faults, went_on.rows_written) == (0, 14)
    assert went_on.file.name != late.file.name
    export_steps.begin_slice(late, lost=False)
    export_steps.write_slice(late)
    assert Export.objects.get().rows_written == 14
    write_all()

    found = lines(Export.objects.get())
    assert len({line["event_id"] for line in found}) == len(found) == 30
    assert not AuditEvent.objects.filter(action="export_finished")[1:]


def test_file_that_is_gone_is_written_again_from_the_beginning(
    auditor: User, laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    events(laboratory, auditor, 20)
    one_chunk_a_slice(monkeypatch)
    export = services.request_export(actor=auditor, kind="audit_events", filters={"action": ["case_opened"]})
    assert export_steps.continue_export()
    Path(Export.objects.get().file.path).unlink()

    write_all()

    export.refresh_from_db()
    assert len(lines(export)) == 20


def test_writer_that_fails_three_times_ends_with_a_sentence(
    auditor: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = services.request_export(actor=auditor, kind="reviews", filters={})

    def broken(*_: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr(export_steps, "write_slice", broken)
    for _ in range(3):
        with pytest.raises(OSError, match="no room"):
            export_steps.continue_export()
        assert export_steps.continue_export() == 0
        Export.objects.update(claim_expires_at=Now() - timedelta(seconds=1))
    assert export_steps.continue_export() == 0

    export.refresh_from_db()
    assert (export.state, export.failure_code) == (ExportState.FAILED, "export_failed")
    assert "given up" in sign_in(auditor).get(reverse("exports")).content.decode()


def test_interrupted_now_and_then_it_is_finished_all_the_same(
    auditor: User, laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    events(laboratory, auditor, 40)
    one_chunk_a_slice(monkeypatch)
    export = services.request_export(actor=auditor, kind="audit_events", filters={"action": ["case_opened"]})

    for _ in range(4):
        assert export_steps.continue_export()
        assert export_steps.claim_export()
        Export.objects.update(claim_expires_at=Now() - timedelta(seconds=1))
    write_all()

    export.refresh_from_db()
    assert len(lines(export)) == 40


def test_image_that_somebody_waits_for_goes_first(
    auditor: User, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.request_export(actor=auditor, kind="reviews", filters={})
    make_image()

    assert export_steps.continue_export(classified=1) == 0
    # Where nothing can be classified, there is nothing to be in the way of.
    assert export_steps.continue_export() == 1


def test_task_writes_an_export_between_images_and_sweep_wakes_for_it(
    auditor: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[int] = []
    monkeypatch.setattr(export_steps, "send_wake_up", lambda: woken.append(1))
    export = services.request_export(actor=auditor, kind="reviews", filters={})

    tasks.sweep_expired_claims()
    assert woken
    tasks.classify_queued()

    export.refresh_from_db()
    assert export.state == ExportState.READY


def test_small_export_does_not_wait_for_a_large_one(
    auditor: User, laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    events(laboratory, auditor, 40)
    one_chunk_a_slice(monkeypatch)
    large = services.request_export(actor=auditor, kind="audit_events", filters={})
    assert export_steps.continue_export()
    small = services.request_export(actor=auditor, kind="reviews", filters={})

    assert export_steps.continue_export()

    small.refresh_from_db()
    large.refresh_from_db()
    assert (small.state, large.state) == (ExportState.READY, ExportState.WRITING)
    progress = progress_of(large)
    assert (progress.written, progress.seconds_left is not None) == (7, True)


# --- Fetching --------------------------------------------------------------------------------------------------


def fetch(client: Client, export: Export, key: str) -> Any:
    return client.get(reverse("export-file", args=[export.pk]), {"key": key})


def test_auditor_fetches_the_file_by_the_link_on_the_page(sign_in: SignIn, auditor: User, read_image: Any) -> None:
    read_image()
    export = ready(auditor)
    client = sign_in(auditor)

    page = client.get(reverse("exports")).content.decode()
    link = page.split(f'href="{reverse("export-file", args=[export.pk])}?', 1)[1].split('"', 1)[0]
    answer = client.get(f"{reverse('export-file', args=[export.pk])}?{link}")

    assert answer.status_code == 200
    content = b"".join(answer.streaming_content)  # type: ignore[attr-defined]
    assert sha256(content).hexdigest() == export.sha256
    assert export.sha256 in page
    assert answer["Content-Type"] == "text/csv"
    assert answer["Content-Disposition"].startswith("attachment; filename=")
    assert {"private", "no-store"} <= set(answer["Cache-Control"].split(", "))
    assert answer["X-Content-Type-Options"] == "nosniff"
    event = AuditEvent.objects.get(action="export_downloaded")
    assert (event.actor, event.target_id, event.facts["rows"]) == (auditor, str(export.pk), 1)


def test_link_that_is_over_altered_or_of_somebody_else_opens_nothing(
    sign_in: SignIn, auditor: User, laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    colleague = person("ann@north.example", "Ann", laboratory, Role.AUDITOR)
    export, other = ready(auditor), ready(auditor, "predictions")
    client = sign_in(auditor)
    key = link_key(export, auditor)
    stamp = TimestampSigner.timestamp
    monkeypatch.setattr(TimestampSigner, "timestamp", lambda self: earlier(stamp(self), LINK_SECONDS + 1))
    over = link_key(export, auditor)
    monkeypatch.undo()

    for bad in (over, "", "x", key[:-1], key + "0", link_key(other, auditor), link_key(export, colleague)):
        answer = fetch(client, export, bad)
        assert answer.status_code == 403, bad
        assert "Use the one below" in answer.content.decode()
    assert fetch(sign_in(colleague), export, key).status_code == 403
    assert not AuditEvent.objects.filter(action="export_downloaded").exists()
    assert fetch(client, export, key).status_code == 200


def earlier(stamp: str, seconds: int) -> str:
    return b62_encode(b62_decode(stamp) - seconds)


def test_auditor_of_another_laboratory_gets_404(sign_in: SignIn, auditor: User, other_laboratory: Laboratory) -> None:
    export = ready(auditor)
    theirs = person("olga@south.example", "Olga", other_laboratory, Role.AUDITOR)
    client = sign_in(theirs)

    assert fetch(client, export, link_key(export, theirs)).status_code == 404
    assert client.post(reverse("export-withdraw", args=[export.pk])).status_code == 404
    assert str(export.pk) not in client.get(reverse("exports")).content.decode()
    with pytest.raises(NotAllowed):
        services.withdraw_export(actor=theirs, export=export)


def test_file_is_removed_after_its_time_and_the_row_stays(sign_in: SignIn, auditor: User) -> None:
    export = ready(auditor)
    path, key = Path(export.file.path), link_key(export, auditor)
    export_steps.sweep_exports()
    assert path.exists()
    Export.objects.update(expires_at=Now() - timedelta(seconds=1))

    export_steps.sweep_exports()

    export.refresh_from_db()
    assert (path.exists(), export.state) == (False, ExportState.EXPIRED)
    answer = fetch(sign_in(auditor), export, key)
    assert (answer.status_code, "has no file" in answer.content.decode()) == (404, True)
    with pytest.raises(HematoVisionError, match="export_not_ready"):
        services.record_export_download(actor=auditor, export=export)


def test_files_that_no_row_names_are_removed_once_they_are_old(auditor: User, settings: Any) -> None:
    export = ready(auditor)
    folder = Path(export.file.path).parent
    fresh, old = folder / "fresh.csv", folder / "old.csv"
    for path in (fresh, old):
        path.write_text("x")
    long_ago = timezone.now().timestamp() - 7200
    for path in (old, Path(export.file.path)):
        os.utime(path, (long_ago, long_ago))

    assert export_steps.remove_orphans() == 1

    assert (fresh.exists(), old.exists(), Path(export.file.path).exists()) == (True, False, True)


def test_files_are_private(auditor: User) -> None:
    path = Path(ready(auditor).file.path)

    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_page_names_its_state_for_every_export(sign_in: SignIn, auditor: User) -> None:
    client = sign_in(auditor)
    assert "Nothing was exported yet" in client.get(reverse("exports")).content.decode()
    services.request_export(actor=auditor, kind="reviews", filters={"reader": [str(auditor.pk)]})

    page = client.get(reverse("exports")).content.decode()

    assert "Waiting" in page
    assert "Reader: Arno Abel" in page
    assert "data-export-moving" in client.get(reverse("exports"), headers={"X-Fragment": "1"}).content.decode()
