"""The command line: a folder becomes a batch, the command waits for the workers, and writes what came of each file."""

import csv
import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from accounts.models import User
from classifier import batch_steps, pipeline, services
from classifier.batches import BatchProgress
from classifier.management.commands import classify_folder
from classifier.models import Batch, BatchState, Case, CellImage, ModelVersion, Prediction
from classifier.validation_report import validation_of
from tests.zips import cells

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "slide"
    (place / "more").mkdir(parents=True)
    for name, content in cells(3).items():
        (place / name).write_bytes(content)
    (place / "more" / "cell-x.jpg").write_bytes(cells(1, first=77)["cell-0000.jpg"])
    (place / "more" / "notes.txt").write_bytes(b"nothing to see")
    (place / ".DS_Store").write_bytes(b"x")
    (place / "link.jpg").symlink_to(place / "cell-0000.jpg")
    return place


@pytest.fixture
def worker(model_version: ModelVersion) -> Iterator[None]:
    """Classifies in a thread, as a worker process would."""
    over = threading.Event()

    def work() -> None:
        try:
            while not over.is_set():
                if not pipeline.classify_queued():
                    time.sleep(0.05)
                batch_steps.finish_batches()
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


def classify(folder: Path, **options: Any) -> str:
    said = io.StringIO()
    call_command("classify_folder", str(folder), stderr=said, **{"accession": "F-1", **options})
    return said.getvalue()


def lines_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"))))


def test_folder_is_classified_and_every_file_has_its_line(
    technologist: User, worker: None, folder: Path, tmp_path: Path
) -> None:
    said = classify(folder, csv=tmp_path / "out.csv")
    assert "Done: 4 classified, 0 failed, 1 refused." in said
    rows = lines_of(tmp_path / "out.csv")
    assert [(row["file"], row["status"]) for row in rows] == [
        ("cell-0000.jpg", "classified"),
        ("cell-0001.jpg", "classified"),
        ("cell-0002.jpg", "classified"),
        ("more/cell-x.jpg", "classified"),
        ("more/notes.txt", "refused"),
    ]
    batch = Batch.objects.get()
    assert (batch.case.accession_number, batch.submitted_by) == ("F-1", technologist)
    assert not list(tmp_path.glob(".out.csv*"))


def test_same_command_again_doubles_nothing_and_gives_the_same_results(
    technologist: User, worker: None, folder: Path, tmp_path: Path
) -> None:
    classify(folder, csv=tmp_path / "first.csv")
    said = classify(folder, csv=tmp_path / "second.csv")
    assert "4 there already" in said
    assert (CellImage.objects.count(), Prediction.objects.count()) == (4, 4)
    first, second = lines_of(tmp_path / "first.csv"), lines_of(tmp_path / "second.csv")
    assert [{**row, "code": ""} for row in first] == [{**row, "code": ""} for row in second]


def test_ctrl_c_while_handing_in_leaves_a_batch_that_goes_on(
    technologist: User, model_version: ModelVersion, folder: Path, monkeypatch: Any, tmp_path: Path
) -> None:
    add = services.add_to_batch
    added: list[str] = []

    def interrupted(**about: Any) -> Any:
        if len(added) == 2:
            raise KeyboardInterrupt
        added.append(about["name"])
        return add(**about)

    monkeypatch.setattr(services, "add_to_batch", interrupted)
    with pytest.raises(SystemExit) as left:
        classify(folder, csv=tmp_path / "out.csv")
    assert left.value.code == 130
    assert not (tmp_path / "out.csv").exists()
    while pipeline.classify_queued():
        pass
    batch = Batch.objects.get()
    assert batch.state == BatchState.FINISHED
    assert Prediction.objects.count() == 2


def test_ctrl_c_while_waiting_leaves_a_batch_that_goes_on(
    technologist: User, model_version: ModelVersion, folder: Path, monkeypatch: Any
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("classifier.management.commands.classify_folder.time.sleep", interrupt)
    with pytest.raises(SystemExit):
        classify(folder)
    assert Batch.objects.get().state == BatchState.RUNNING
    while pipeline.classify_queued():
        pass
    assert Batch.objects.get().state == BatchState.FINISHED


def test_folder_with_labels_is_a_validation(technologist: User, worker: None, folder: Path) -> None:
    (folder / "labels.csv").write_text("file,label\ncell-0000.jpg,monocyte\nmore/cell-x.jpg,blast\ngone.jpg,monocyte\n")
    classify(folder)
    batch = Batch.objects.get()
    validation = validation_of(batch)
    assert validation is not None
    assert (validation.labelled, dict(validation.asked)) == (1, {"monocyte": 1})
    complaints = batch.members.filter(number__gte=5).values_list("name", "code")
    assert list(complaints) == [("labels.csv, line 3", "unknown_label"), ("gone.jpg", "label_without_file")]


def test_file_that_cannot_be_read_or_is_too_large_is_refused_alone(
    technologist: User, worker: None, folder: Path, settings: Any, tmp_path: Path
) -> None:
    settings.MAX_IMAGE_BYTES = 50_000
    (folder / "huge.jpg").write_bytes(bytes(50_001))
    classify(folder, csv=tmp_path / "out.csv")
    codes = {row["file"]: row["code"] for row in lines_of(tmp_path / "out.csv")}
    assert codes["huge.jpg"] == "file_too_large"
    assert codes["cell-0000.jpg"] == ""


@pytest.mark.parametrize(
    ("prepare", "options", "sentence"),
    [
        (lambda folder: None, {"user": "nobody@north.example"}, "no active user"),
        (lambda folder: None, {"csv": Path("/nowhere/at/all.csv")}, "no folder /nowhere/at"),
        (lambda folder: [file.unlink() for file in folder.rglob("*.*")], {}, "holds no files"),
    ],
)
def test_what_can_not_be_done_is_one_sentence(
    technologist: User, folder: Path, prepare: Callable[[Path], Any], options: dict[str, Any], sentence: str
) -> None:
    prepare(folder)
    with pytest.raises(CommandError, match=sentence):
        classify(folder, **options)
    assert not Batch.objects.exists()


def test_without_a_name_the_only_technologist_hands_in(
    technologist: User, reader: User, stranger: User, folder: Path
) -> None:
    assert classify_folder.chosen_user(None) == technologist
    assert classify_folder.chosen_user("RUTH@north.example") == reader
    User.objects.filter(pk=reader.pk).update(role="technologist")
    with pytest.raises(CommandError, match="--user"):
        classify_folder.chosen_user(None)


def test_case_that_is_released_takes_no_folder(technologist: User, case: Case, folder: Path) -> None:
    Case.objects.update(status="released")
    with pytest.raises(CommandError, match="released"):
        classify(folder, accession=case.accession_number)


def test_progress_line_shows_rate_and_time_left() -> None:
    progress = BatchProgress(200, 150, 50, 0, 0, 0, 0, 12.5, 75)
    shown = classify_folder.how_far(progress, 200, 150)
    assert shown == f"[{'#' * 6}{'.' * 18}] 50 of 200, 12.5 a second, 1:15 left"
