"""The Python client for integrators, against the running application."""

import logging
import os
import re
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator

from accounts.models import User
from accounts.tokens import create_token
from classifier import services
from classifier.models import (
    Batch,
    Case,
    CellImage,
    IdempotentRequest,
    ModelVersion,
    NotificationKind,
    Report,
    Review,
)
from classifier.services.notifications import notify
from classifier.webhook_request import signature
from tests.conftest import PASSWORD
from tests.factories import image_in_state, prediction_of
from tests.pictures import jpeg_of_cell, real_image_files
from tests.receiver import Authority, Receiver, free_port, running, talking
from tests.zips import cells, zip_of

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "clients" / "python"))

from hematovision_client import Client, Problem, Progress, answers, verify_signature
from hematovision_client.multipart import PIECE, FileForm

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "clients" / "python"


@pytest.fixture
def client(live_server: Any, reader: User) -> Iterator[Client]:
    with Client(live_server.url, create_token(user=reader), tries=3) as client:
        yield client


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[[int], list[Path]]:
    """Files with different pictures of cells."""

    def written(count: int) -> list[Path]:
        folder = tmp_path / "pictures"
        folder.mkdir(exist_ok=True)
        real = real_image_files()
        paths = [folder / f"cell-{number}.jpg" for number in range(count)]
        for number, path in enumerate(paths):
            path.write_bytes(real[number].read_bytes() if number < len(real) else jpeg_of_cell(number))
        return paths

    return written


def other_labels(image: answers.Image) -> tuple[str, str]:
    """Two cell types that the model did not give the image."""
    assert image["prediction"] is not None
    said = image["prediction"]["label"]
    one, another, *_ = [label for label in ("monocyte", "basophil", "eosinophil") if label != said]
    return one, another


def said_by_the_client(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "hematovision_client"]


@contextmanager
def line_that_loses_answers(address: str, lost: int) -> Iterator[str]:
    """A way to the server on which the first `lost` connections break after the request, before the answer."""
    host, _, port = address.removeprefix("http://").partition(":")
    left = [lost]

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            loses = left[0] > 0
            left[0] -= 1
            with socket.create_connection((host, int(port))) as server:
                back = threading.Thread(target=self.pass_on, args=(server, self.request, loses))
                back.start()
                self.pass_on(self.request, server, False)
                back.join()

        def pass_on(self, source: Any, target: Any, loses: bool) -> None:
            try:
                while piece := source.recv(65536):
                    if loses:
                        break
                    target.sendall(piece)
            except OSError:
                pass
            for end in (source, target):
                try:
                    end.shutdown(2)
                except OSError:
                    pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as line:
        thread = threading.Thread(target=line.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{line.server_address[1]}"
        finally:
            line.shutdown()
            thread.join()


# --- The way ---------------------------------------------------------------------------------------------------


def test_the_page_runs_as_it_is_written_from_the_pictures_to_the_signed_report(
    live_server: Any, reader: User, worker: None, pictures: Callable[[int], list[Path]], tmp_path: Path
) -> None:
    pictures(2)
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    page = (ROOT / "docs" / "client.md").read_text()
    [script] = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(PACKAGE),
        "HEMATOVISION": live_server.url,
        "TOKEN": create_token(user=reader),
        "PASSWORD": PASSWORD,
    }

    done = subprocess.run(
        [sys.executable, "-"],
        input=script,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    report = Report.objects.get()
    assert report.signed_by == reader
    assert f"version 1 {report.sha256}" in done.stdout
    assert "refused: not_an_image" in done.stdout
    assert "3 of 3, 0 s left" in done.stderr
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")
    assert (tmp_path / "report.pdf").stat().st_mode & 0o777 == 0o600
    assert b'"resourceType"' in (tmp_path / "report.json").read_bytes()
    assert (tmp_path / "report.csv").read_text().count("\n") > 5
    assert [path.name for path in tmp_path.glob(".download-*")] == []


def test_a_signed_case_is_amended_and_signed_again(
    client: Client, worker: None, pictures: Callable[[int], list[Path]]
) -> None:
    case = client.open_case("A-77")
    image = client.wait_for(client.upload_image(case, pictures(1)[0]))
    assert image["status"] == "classified"
    one, another = other_labels(image)
    first = client.review(image, "CORRECTED", one, previous_review=None)
    with pytest.raises(Problem) as refused:
        client.review(image, "CORRECTED", another, previous_review=None)
    assert (refused.value.status, refused.value.code) == (409, "review_changed")
    second = client.review(image, "CORRECTED", another, previous_review=first)
    assert [row["id"] for row in client.reviews(image)] == [second["id"], first["id"]]
    signed = client.release(case, PASSWORD, reason="Few cells.")

    amendment = client.amend(case, "corrected", "The wrong cell type.")
    assert amendment["report"] == signed["id"]
    client.review(image["id"], "CORRECTED", one, previous_review=second["id"])
    client.release(case, PASSWORD, reason="Few cells.")

    assert [(row["version"], row["standing"]) for row in client.reports(case)] == [(2, "current"), (1, "superseded")]
    report = client.report(signed)
    assert report["payload"]
    assert report["sha256"] == signed["sha256"]
    newest = client.case(case)["report"]
    assert newest is not None
    assert newest["version"] == 2


def test_a_case_is_found_changed_given_to_somebody_and_voided(client: Client, reader: User) -> None:
    case = client.open_case("A-5")

    assert [found["id"] for found in client.find_cases("a-5")] == [case["id"]]
    assert client.change_case(case, wbc_value=7.2, wbc_source="XN-1000")["wbc_value"] == 7.2
    [somebody] = client.reviewers()
    given = client.assign(case, somebody)["assigned_to"]
    assert given is not None
    assert given["id"] == str(reader.pk)
    assert client.void_case(case, "Entered twice.")["reason"] == "Entered twice."
    assert client.case(case)["status"] == "void"


# --- Pages -----------------------------------------------------------------------------------------------------


def test_lists_of_more_than_one_page_are_followed_and_only_when_needed(
    client: Client, reader: User, caplog: pytest.LogCaptureFixture
) -> None:
    opened = [str(services.open_case(actor=reader).pk) for _ in range(5)]
    caplog.set_level(logging.DEBUG, logger="hematovision_client")

    rows = client.cases(page_size=2, status="open")
    assert next(rows)["id"] == opened[-1]
    assert said_by_the_client(caplog) == ["GET /cases/: done"]

    assert [row["id"] for row in rows] == opened[-2::-1]
    assert said_by_the_client(caplog) == ["GET /cases/: done"] * 3


def test_images_of_one_case_come_in_pages_and_no_others(client: Client, pictures: Callable[[int], list[Path]]) -> None:
    case, other = client.open_case(), client.open_case()
    paths = pictures(4)
    uploads = client.upload_images(case, paths[:3])
    client.upload_image(other, paths[3])

    found = list(client.images(case, page_size=2))

    assert [row["id"] for row in found] == [upload.image["id"] for upload in reversed(uploads) if upload.image]
    assert list(client.images(case, status="failed")) == []
    assert len(list(client.images())) == 4


# --- Uploads ---------------------------------------------------------------------------------------------------


def test_a_refused_file_stops_no_other_and_each_has_its_outcome(
    client: Client, pictures: Callable[[int], list[Path]], tmp_path: Path
) -> None:
    first, second = pictures(2)
    broken = tmp_path / 'no "picture".jpg'
    broken.write_bytes(b"not a picture at all")
    heard: list[Progress] = []

    uploads = client.upload_images(
        client.open_case(), [first, broken, tmp_path / "missing.jpg", second, first], heard.append
    )

    assert [upload.problem and upload.problem.code for upload in uploads] == [
        None,
        "not_an_image",
        "unreadable_file",
        None,
        None,
    ]
    assert [upload.duplicate for upload in uploads] == [False, False, False, False, True]
    assert uploads[0].image is not None
    assert uploads[4].image is not None
    assert uploads[0].image["id"] == uploads[4].image["id"]
    assert sorted(CellImage.objects.values_list("original_name", flat=True)) == [first.name, second.name]
    assert [step.done for step in heard] == [1, 2, 3, 4, 5]
    assert (
        heard[-1].bytes_done
        == heard[-1].bytes_total
        == sum(path.stat().st_size for path in (first, broken, second, first))
    )
    assert heard[0].rate is not None
    assert heard[0].seconds_left is not None
    assert heard[-1].seconds_left == 0


def test_what_would_stop_every_file_is_met_once(
    client: Client, pictures: Callable[[int], list[Path]], live_server: Any
) -> None:
    case = client.open_case()
    with Client(live_server.url, "0" * 64) as nobody:
        uploads = nobody.upload_images(case, pictures(3))

    assert [upload.problem.code for upload in uploads if upload.problem] == ["invalid_token"] * 3
    assert [upload.sent for upload in uploads] == [True, False, False]


def test_a_lost_answer_doubles_nothing(
    client: Client, live_server: Any, reader: User, worker: None, pictures: Callable[[int], list[Path]]
) -> None:
    token = create_token(user=reader)
    with line_that_loses_answers(live_server.url, 1) as line, Client(line, token) as unlucky:
        case = unlucky.open_case()
    with line_that_loses_answers(live_server.url, 1) as line, Client(line, token) as unlucky:
        uploads = unlucky.upload_images(case, pictures(2))
    assert uploads[0].image is not None
    image = client.wait_for(uploads[0].image)
    with line_that_loses_answers(live_server.url, 1) as line, Client(line, token) as unlucky:
        review = unlucky.review(image, "CORRECTED", other_labels(image)[0])

    # The key of each was used: the first answer was made, and lost on the way.
    assert IdempotentRequest.objects.count() == 4
    assert str(Case.objects.get().pk) == case["id"]
    assert [upload.problem for upload in uploads] == [None, None]
    assert [upload.duplicate for upload in uploads] == [False, False]
    assert CellImage.objects.count() == 2
    assert str(Review.objects.get().pk) == review["id"]


# --- Batches and waiting ---------------------------------------------------------------------------------------


def test_a_batch_is_handed_in_waited_for_and_its_results_fetched(client: Client, worker: None, tmp_path: Path) -> None:
    archive = tmp_path / "slide.zip"
    archive.write_bytes(zip_of({**cells(3), "bad.jpg": b"not a picture"}))
    heard: list[Progress] = []

    batch = client.submit_batch(archive, "S-7", heard.append)
    done = client.wait_for(batch, timeout=120)

    assert (done["state"], done["total"], done["classified"] + done["failed"]) == ("finished", 3, 3)
    assert [(row["file"], row["code"]) for row in done["refused"]] == [("bad.jpg", "not_an_image")]
    assert (heard[-1].done, heard[-1].bytes_done) == (1, archive.stat().st_size)
    assert Case.objects.get().accession_number == "S-7"
    assert [row["id"] for row in client.batches()] == [batch["id"]]
    assert len(list(client.images(batch=batch, page_size=2))) == 3
    results = client.download_results(batch, tmp_path / "results.csv")
    assert results.read_text().count("\n") == 5


def test_a_batch_is_paused_resumed_and_cancelled(client: Client, tmp_path: Path) -> None:
    archive = tmp_path / "slide.zip"
    archive.write_bytes(zip_of(cells(2)))
    batch = client.submit_batch(archive)
    Batch.objects.update(checked_at=timezone.now(), started_at=timezone.now())

    assert client.pause(batch)["state"] == "paused"
    assert client.wait_for(batch)["state"] == "paused"
    assert client.resume(batch)["state"] == "running"
    assert client.cancel(batch)["state"] == "cancelled"


def test_a_download_that_can_not_be_written_is_a_problem(client: Client, tmp_path: Path) -> None:
    (tmp_path / "slide.zip").write_bytes(zip_of(cells(1)))
    batch = client.submit_batch(tmp_path / "slide.zip")

    with pytest.raises(Problem) as refused:
        client.download_results(batch, tmp_path / "missing" / "results.csv")

    assert (refused.value.status, refused.value.code) == (0, "not_written")


def test_a_body_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    archive = tmp_path / "large.zip"
    with archive.open("wb") as file:
        file.truncate(100 * 1024**2)
    form = FileForm("archive", archive, {"accession_number": "S-7"})

    tracemalloc.start()
    try:
        lengths = [len(piece) for piece in form.pieces()]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert sum(lengths) == form.length
    assert max(lengths) == PIECE
    assert peak < 1024**2


def test_a_file_that_changes_while_it_is_sent_is_a_problem_and_no_half_picture(tmp_path: Path) -> None:
    path = tmp_path / "cell.jpg"
    path.write_bytes(b"1234")
    form = FileForm("file", path)
    path.write_bytes(b"12")

    with pytest.raises(Problem) as refused:
        list(form.pieces())

    assert refused.value.code == "unreadable_file"


def test_a_wait_that_runs_out_says_so(client: Client, pictures: Callable[[int], list[Path]]) -> None:
    image = client.upload_image(client.open_case(), pictures(1)[0])

    with pytest.raises(Problem) as refused:
        client.wait_for(image, timeout=1.2)

    assert (refused.value.status, refused.value.code) == (0, "not_finished")


def test_a_model_is_tried_on_a_case_and_notifications_are_read(
    client: Client, reader: User, model_version: ModelVersion
) -> None:
    other = ModelVersion.objects.create(
        name="other", version="1", sha256="0" * 64, labels=["neutrophil"], preprocessing_version="1"
    )
    case = Case.objects.get(pk=client.open_case()["id"])
    prediction_of(image_in_state("classified", case=case, uploaded_by=reader), model_version)
    notify(user=reader, kind=NotificationKind.CASE_ASSIGNED, case=case)

    trial = client.try_model(str(case.pk), str(other.pk))

    assert (trial["state"], trial["total"], trial["outcome"]) == ("waiting", 1, None)
    assert client.trial(trial)["id"] == trial["id"]
    assert [listed["id"] for listed in client.trials(str(case.pk))] == [trial["id"]]
    [unread] = client.notifications(unread=True)
    assert client.mark_read(unread)["read_at"] is not None
    assert list(client.notifications(unread=True)) == []
    assert [line["case"] for line in client.notifications()] == [str(case.pk)]
    assert list(client.batches(str(case.pk))) == []


# --- Problems --------------------------------------------------------------------------------------------------


def test_problems_have_the_code_the_sentence_and_the_fields(client: Client, live_server: Any) -> None:
    with pytest.raises(Problem) as refused:
        client.open_case(wbc_value=-1)
    assert (refused.value.status, refused.value.code) == (400, "invalid_input")
    assert [error["field"] for error in refused.value.errors] == ["wbc_value"]
    assert refused.value.detail

    with pytest.raises(Problem) as refused:
        client.case("0b6f2c3e-6d0a-4f0f-9a55-2f0f0a3f4c11")
    assert (refused.value.status, refused.value.code) == (404, "not_found")

    with Client(live_server.url, "0" * 64) as nobody, pytest.raises(Problem) as refused:
        next(nobody.cases())
    assert (refused.value.status, refused.value.code) == (401, "invalid_token")

    with Client(f"{live_server.url}/elsewhere", "0" * 64) as lost, pytest.raises(Problem) as refused:
        next(lost.cases())
    assert (refused.value.status, refused.value.code) == (404, "not_understood")


def test_neither_the_log_nor_the_text_of_a_problem_holds_patient_text_or_the_token(
    live_server: Any, reader: User, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = create_token(user=reader)
    picture = tmp_path / "Jane Roe.jpg"
    picture.write_bytes(b"not a picture")
    with caplog.at_level(logging.DEBUG, logger="hematovision_client"), Client(live_server.url, token) as client:
        case = client.open_case("JANE-1", patient_pseudonym="Jane")
        with pytest.raises(Problem) as refused:
            client.open_case("JANE-1")
        [upload] = client.upload_images(case, [picture])
        client.find_cases("JANE-1")
        assert token not in repr(client)

    assert str(refused.value) == "409 accession_number_taken"
    assert upload.problem is not None
    said = " ".join(said_by_the_client(caplog))
    assert "POST /cases/: 409 accession_number_taken" in said
    assert not re.search(f"jane|{token}", said + str(refused.value) + str(upload.problem), re.IGNORECASE)


def test_an_accession_number_never_gets_into_an_address(client: Client) -> None:
    with pytest.raises(ValueError, match="needs an id") as refused:
        client.case("JANE-1")

    assert "JANE" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_retry_after_is_honoured_and_patience_has_an_end(
    live_server: Any, reader: User, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.API_REQUESTS_PER_SECOND = 1
    caplog.set_level(logging.INFO, logger="hematovision_client")
    with Client(live_server.url, create_token(user=reader)) as client:
        start = time.monotonic()
        for _ in range(12):
            client.reviewers()
        assert time.monotonic() - start >= 1
    assert "GET /reviewers/: 429 too_many_requests" in said_by_the_client(caplog)

    with Client(live_server.url, create_token(user=reader), longest_pause=0.1) as client:
        for _ in range(10):
            client.reviewers()
        with pytest.raises(Problem) as refused:
            client.reviewers()
    assert (refused.value.status, refused.value.code) == (429, "too_many_requests")
    assert refused.value.retry_after is not None
    assert refused.value.retry_after >= 1


def test_without_a_server_the_tries_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="hematovision_client")
    with Client(f"http://127.0.0.1:{free_port()}", "0" * 64, tries=3) as client, pytest.raises(Problem) as refused:
        client.open_case()

    assert (refused.value.status, refused.value.code) == (0, "not_connected")
    assert said_by_the_client(caplog) == ["POST /cases/: no answer (ConnectionRefusedError)"] * 3


@pytest.mark.parametrize(
    ("status", "header", "asked"),
    [
        (503, "Retry-After: 0", 3),
        (503, "Retry-After: Mon, 23 Nov 2020 10:00:00 GMT", 3),
        (502, "Via: a proxy", 3),
        (503, "Retry-After: 3600", 1),
        (500, "Retry-After: 0", 1),
        (301, "Location: https://example.org/", 1),
    ],
)
def test_a_server_that_never_recovers_is_asked_a_bounded_number_of_times(status: int, header: str, asked: int) -> None:
    times: list[float] = []

    def refuse(connection: socket.socket) -> None:
        times.append(time.monotonic())
        connection.sendall(f"HTTP/1.1 {status} No\r\n{header}\r\nContent-Length: 0\r\n\r\n".encode())

    with (
        talking(refuse) as address,
        Client(address, "0" * 64, tries=3) as client,
        pytest.raises(Problem) as refused,
    ):
        client.open_case()

    assert refused.value.status == status
    assert len(times) == asked


# --- TLS and signatures ----------------------------------------------------------------------------------------


def test_a_certificate_that_is_not_trusted_sees_no_token_and_a_context_of_ones_own_is_used(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    receiver = Receiver()
    with running(receiver, tls=authority.server_context("localhost"), name="localhost") as server:
        address = re.sub(r"(https://[^/]+).*", r"\1", server.url)
        with Client(address, "0" * 64) as client, pytest.raises(Problem) as refused:
            client.open_case()
        assert refused.value.code == "not_trusted"
        assert receiver.received == []

        trusting = ssl.create_default_context(cafile=str(authority.file))
        with Client(address, "0" * 64, context=trusting) as client, pytest.raises(Problem) as refused:
            client.open_case()
        assert refused.value.code == "not_understood"
        assert [received.headers["Authorization"] for received in receiver.received] == [f"Token {'0' * 64}"]


@pytest.mark.parametrize("address", ["http://hematovision.example.org", "ftp://localhost", "https://", "https://me@x"])
def test_addresses_that_would_give_the_token_away_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"https|address"):
        Client(address, "0" * 64)


def test_plain_http_is_for_this_machine_or_on_demand() -> None:
    Client("http://127.0.0.1:8000", "0" * 64)
    Client("http://hematovision.example.org", "0" * 64, allow_http=True)
    Client("hematovision.example.org", "0" * 64)


BODY = b'{"event":"report.released"}'


def test_the_servers_own_signature_is_genuine() -> None:
    header = signature(["new secret", "old secret"], 1_795_428_000, BODY)

    for secret in ("new secret", "old secret"):
        assert verify_signature(secret, header, BODY, now=1_795_428_000)
    assert verify_signature("new secret", signature(["new secret"], int(time.time()), BODY), BODY)


@pytest.mark.parametrize(
    ("secret", "body", "late"),
    [("another", BODY, 0), ("secret", BODY + b" ", 0), ("secret", BODY, 301), ("secret", BODY, -301)],
)
def test_a_wrong_secret_a_changed_body_and_an_old_message_are_not_genuine(secret: str, body: bytes, late: int) -> None:
    header = signature(["secret"], 1_795_428_000, BODY)

    assert verify_signature("secret", header, BODY, now=1_795_428_000)
    assert not verify_signature(secret, header, body, now=1_795_428_000 + late)


@pytest.mark.parametrize(
    "header",
    [None, "", "t=,v1=", "t=1795428000", "t=1795428000,t=1,v1=a", "t=١,v1=é", f"t={'9' * 5000},v1=a", "\ud800"],
)
def test_a_header_that_is_none_is_not_genuine_and_breaks_nothing(header: str | None) -> None:
    assert not verify_signature("secret", header, BODY, now=1_795_428_000)


# --- Types -----------------------------------------------------------------------------------------------------

SCHEMAS = {
    "Person": answers.Person,
    "Voiding": answers.Voiding,
    "Failure": answers.Failure,
    "ModelReference": answers.ModelReference,
    "FoundLeukocyte": answers.FoundLeukocyte,
    "Prediction": answers.Prediction,
    "Review": answers.Review,
    "UploadedImage": answers.UploadedImage,
    "CellImage": answers.Image,
    "Case": answers.Case,
    "CaseDetail": answers.CaseDetail,
    "ImageCounts": answers.ImageCounts,
    "ReportReference": answers.ReportReference,
    "Absolute": answers.Absolute,
    "CellShare": answers.CellShare,
    "OutsideCount": answers.OutsideCount,
    "Blocker": answers.Blocker,
    "Differential": answers.Differential,
    "SignedReport": answers.SignedReport,
    "ReportVersion": answers.ReportVersion,
    "Report": answers.Report,
    "Amendment": answers.Amendment,
    "SubmittedBatch": answers.SubmittedBatch,
    "ListedBatch": answers.ListedBatch,
    "RefusedFile": answers.RefusedFile,
    "Trial": answers.ListedTrial,
    "Pair": answers.LabelPair,
    "Outcome": answers.TrialOutcome,
    "TrialDetail": answers.Trial,
    "Notification": answers.Notification,
    "Batch": answers.Batch,
}


def test_types_have_the_members_that_the_api_describes() -> None:
    described = SchemaGenerator().get_schema(request=None, public=True)["components"]["schemas"]

    for name, answer in SCHEMAS.items():
        assert set(get_type_hints(answer)) == set(described[name]["properties"]), name


def test_the_package_needs_nothing_but_the_standard_library() -> None:
    script = (
        "import sys; before = set(sys.modules); import hematovision_client; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names) - {'hematovision_client'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PACKAGE, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
