"""The de-identified export: a ZIP that names nobody, whole even when its writer died in the middle."""

import csv
import io
import json
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import default_storage
from django.test import Client
from django.urls import reverse

from accounts.models import User
from classifier import de_identified, export_steps, services
from classifier.errors import InvalidInput
from classifier.models import Case, CellImage, Export, ModelVersion, RemovedPicture, RetentionRule
from tests.factories import prediction_of

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]
pytestmark = pytest.mark.django_db


@pytest.fixture
def case_with_secrets(technologist: User) -> Case:
    return services.open_case(
        actor=technologist, accession_number="SECRET-1", patient_pseudonym="SECRET-P", specimen="SECRET-S"
    )


@pytest.fixture
def reviewed(
    make_image: MakeImage, case_with_secrets: Case, model_version: ModelVersion, reader: User
) -> list[CellImage]:
    """Three reviewed pictures; beside them one that nobody read, one void, one removed, one of a void case."""
    images = []
    for label in ("lymphocyte", "monocyte", ""):
        image = make_image("classified", case=case_with_secrets, name="SECRET-N.jpg")
        prediction_of(image, model_version)
        verdict = {"lymphocyte": "CONFIRMED", "monocyte": "CORRECTED", "": "UNUSABLE"}[label]
        final = label if verdict == "CORRECTED" else ""
        services.review_image(actor=reader, image=image, verdict=verdict, final_label=final, comment="SECRET-C")
        images.append(image)
    make_image("classified", case=case_with_secrets)
    void = make_image("reviewed", case=case_with_secrets)
    services.void_image(actor=reader, image=void, reason="Smudged")
    removed = make_image("reviewed", case=case_with_secrets)
    rule = RetentionRule.objects.create(
        laboratory=case_with_secrets.laboratory, version=1, keep_days=30, reason="Ours", by=reader
    )
    RemovedPicture.objects.create(image=removed, rule=rule)
    wrong = services.open_case(actor=reader)
    make_image("reviewed", case=wrong)
    services.void_case(actor=reader, case=wrong, reason="Wrong patient")
    return images


def written(auditor: User, **filters: list[str]) -> tuple[Export, zipfile.ZipFile]:
    export = services.request_export(actor=auditor, kind="de_identified", filters=filters)
    while Export.objects.get(pk=export.pk).finished_at is None:
        export_steps.continue_export()
    export.refresh_from_db()
    return export, zipfile.ZipFile(default_storage.path(str(export.file.name)))


def table_in(archive: zipfile.ZipFile) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(archive.read("reviews.csv").decode())))


def test_archive_holds_the_reviewed_pictures_in_folders_by_cell_type(reviewed: list[CellImage], auditor: User) -> None:
    export, archive = written(auditor)

    assert archive.testzip() is None
    names = archive.namelist()
    assert sorted(name.rsplit("/", 1)[0] for name in names if "/" in name) == [
        "images/lymphocyte",
        "images/monocyte",
        "unusable",
    ]
    assert export.rows_written == 3
    rows = {row["cell_type"]: row for row in table_in(archive)}
    assert len(rows) == 3
    # The picture is the stored one, to the byte.
    assert archive.read(rows["lymphocyte"]["file"]) == Path(reviewed[0].file.path).read_bytes()
    assert rows["monocyte"]["verdict"] == "CORRECTED"
    assert rows["monocyte"]["model_label"] == "lymphocyte"
    assert float(rows["lymphocyte"]["confidence"]) == 0.92
    assert json.loads(rows["lymphocyte"]["probabilities"])["lymphocyte"] == 0.92


def test_nothing_in_it_says_whose_it_is(
    reviewed: list[CellImage], auditor: User, reader: User, case_with_secrets: Case
) -> None:
    export, archive = written(auditor)
    texts = Path(default_storage.path(str(export.file.name))).read_bytes() + b"".join(
        archive.read(name) for name in ("reviews.csv", "README.txt")
    )
    forbidden = ["SECRET", "Ruth", reader.email, str(reader.pk), str(case_with_secrets.pk), case_with_secrets.pk.hex]
    forbidden += [form for image in reviewed for form in (str(image.pk), image.pk.hex, image.stored_sha256)]
    assert [word for word in forbidden if word.encode() in texts] == []
    assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert {row["month"] for row in table_in(archive)} == {f"{reviewed[0].uploaded_at:%Y-%m}"}
    # What the numbers were made from is forgotten.
    assert export.position is None


def test_numbers_belong_to_one_export_alone(reviewed: list[CellImage], auditor: User) -> None:
    first, second = (table_in(written(auditor)[1]) for _ in range(2))
    for column in ("image", "case", "reader"):
        assert not {row[column] for row in first} & {row[column] for row in second}
    assert len({row["case"] for row in first}) == 1


def test_filters_narrow_it_and_others_are_refused(reviewed: list[CellImage], auditor: User) -> None:
    _, archive = written(auditor, cell_type=["monocyte"], **{"from": [""]})
    assert [row["cell_type"] for row in table_in(archive)] == ["monocyte"]
    _, archive = written(auditor, to=["2001-01-01"])
    assert table_in(archive) == []
    assert archive.namelist() == ["reviews.csv", "README.txt"]
    with pytest.raises(InvalidInput):
        services.request_export(actor=auditor, kind="de_identified", filters={"accession_number": ["SECRET-1"]})


def test_slice_that_was_lost_is_written_again_and_the_archive_is_whole(
    reviewed: list[CellImage], auditor: User, tmp_path: Path
) -> None:
    """A picture a slice; the second slice dies half-way, and its file is cut back to what the first one left."""
    export = services.request_export(actor=auditor, kind="de_identified", filters={})
    path = tmp_path / "export.zip"
    path.touch()
    first = de_identified.write(export, path, ends=0)
    export.position = first.position
    size = path.stat().st_size
    de_identified.write(export, path, ends=0)
    with path.open("r+b") as file:
        file.truncate(size)

    rows = first.rows
    while export.position is not None:
        done = de_identified.write(export, path, ends=0)
        rows, export.position = rows + done.rows, done.position

    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert rows == len(table_in(archive)) == 3


def test_picture_that_is_gone_is_left_out_of_table_and_archive(reviewed: list[CellImage], auditor: User) -> None:
    Path(reviewed[0].file.path).unlink()
    export, archive = written(auditor)
    assert export.rows_written == len(table_in(archive)) == 2


def test_picture_that_ends_like_an_archive_harms_none(reviewed: list[CellImage], auditor: User) -> None:
    for image in reviewed:
        Path(image.file.path).write_bytes(b"picture" * 10 + b"PK\x05\x06" + bytes(18))
    _, archive = written(auditor)
    assert archive.testzip() is None
    assert len(table_in(archive)) == 3


@pytest.mark.parametrize("act", ["void", "remove", "review again", "void the case"])
def test_picture_that_may_go_out_no_more_is_taken_out_while_it_is_written(
    act: str,
    reviewed: list[CellImage],
    auditor: User,
    reader: User,
    case_with_secrets: Case,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export_steps, "SLICE_SECONDS", -1)
    contents = [bytes([number]) * 5000 for number in range(1, 4)]
    for image, content in zip(reviewed, contents, strict=True):
        Path(image.file.path).write_bytes(content)
    export = services.request_export(actor=auditor, kind="de_identified", filters={})
    for _ in reviewed:
        export_steps.continue_export()
    if act == "void":
        services.void_image(actor=reader, image=reviewed[0], reason="Smudged")
    elif act == "remove":
        RemovedPicture.objects.create(image=reviewed[0], rule=RetentionRule.objects.get())
    elif act == "review again":
        services.review_image(actor=reader, image=reviewed[0], verdict="CORRECTED", final_label="eosinophil")
    else:
        services.void_case(actor=reader, case=case_with_secrets, reason="Wrong patient")
    left = 0 if act == "void the case" else 2
    export_steps.continue_export()

    export.refresh_from_db()
    path = Path(default_storage.path(str(export.file.name)))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        rows = table_in(archive)
        assert {row["file"] for row in rows} == {name for name in archive.namelist() if "/" in name}
    assert (len(rows), export.rows_written, export.rows_total) == (left, left, left)
    # Its bytes are nowhere in the file, either.
    assert [content in path.read_bytes() for content in contents] == [False, bool(left), bool(left)]
    # Entries that no directory names can be walked over as before.
    with path.open("rb") as file:
        walked = list(islice(de_identified.entries_in(file), 3))
    assert [entry.filename.strip("0") != "" for entry in walked].count(True) == left


@pytest.mark.parametrize("limit", ["MOST_PICTURES", "MOST_BYTES"])
def test_more_than_one_file_may_hold_is_refused(
    limit: str, reviewed: list[CellImage], auditor: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = {"MOST_PICTURES": 3, "MOST_BYTES": sum(image.stored_bytes for image in reviewed)}[limit]
    monkeypatch.setattr(de_identified, limit, size - 1)
    with pytest.raises(InvalidInput) as refused:
        services.request_export(actor=auditor, kind="de_identified", filters={})
    assert refused.value.code == "export_too_large"
    assert "cell type or days" in refused.value.message
    assert not Export.objects.exists()
    services.request_export(actor=auditor, kind="de_identified", filters={"cell_type": ["monocyte"]})
    monkeypatch.setattr(de_identified, limit, size)
    services.request_export(actor=auditor, kind="de_identified", filters={})


def test_auditor_asks_for_it_on_the_page_of_exports(reviewed: list[CellImage], auditor: User, sign_in: SignIn) -> None:
    client = sign_in(auditor)
    assert "Pictures and reviews without names" in client.get(reverse("exports")).content.decode()
    form: dict[str, Any] = {"export_kind": "de_identified", "cell_type": "lymphocyte", "from": "", "to": ""}
    client.post(reverse("exports"), form)
    assert Export.objects.get().filters == {"cell_type": ["lymphocyte"]}


@pytest.mark.parametrize("who", ["technologist", "reader", "lab_admin", "service_account"])
def test_only_an_auditor_takes_pictures_out(who: str, request: pytest.FixtureRequest, reviewed: Any) -> None:
    with pytest.raises(Exception, match="not_allowed"):
        services.request_export(actor=request.getfixturevalue(who), kind="de_identified", filters={})
