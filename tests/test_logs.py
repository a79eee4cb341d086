"""Patient text never reaches a log, whatever happens on the way."""

import logging
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client, RequestFactory
from django.urls import reverse
from PIL import ExifTags, Image
from rest_framework.test import APIClient

from accounts.models import AuditEvent, User
from classifier import pipeline
from classifier.models import ModelVersion
from classifier.uploads import accept_upload
from hematovision.logs import client_address, shown_path
from tests.pictures import drawn_cell, encoded, jpeg_of_cell

PLANTED = "PLANTED-7731"


def test_nothing_that_people_type_or_name_is_logged_or_kept_in_the_trail(
    sign_in: Callable[[User], Client],
    api: Callable[..., APIClient],
    technologist: User,
    model_version: ModelVersion,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    client = sign_in(technologist)
    client.raise_request_exception = False
    fields: dict[str, Any] = {"accession_number": PLANTED, "patient_pseudonym": f"{PLANTED}-P", "specimen": PLANTED}

    client.post(reverse("case-open"), fields)
    client.post(reverse("case-open"), fields)
    client.post(reverse("case-search"), {"accession_number": PLANTED})
    client.get(reverse("cases"), {"q": PLANTED})
    client.get(f"/nowhere/?name={PLANTED}")
    api(technologist).post("/api/v1/cases/", {**fields, "wbc_value": PLANTED})
    for name, content in ((f"{PLANTED}.jpg", jpeg_of_cell(3)), (f"{PLANTED}.txt", PLANTED.encode())):
        upload = {"file": SimpleUploadedFile(name, content), "quick_case_id": str(uuid.uuid4())}
        client.post(reverse("upload-to-bench"), upload)
    while pipeline.classify_queued():
        pass

    assert caplog.records
    assert PLANTED not in caplog.text
    assert PLANTED not in "".join(str(record.__dict__) for record in caplog.records)
    assert PLANTED not in str(list(AuditEvent.objects.values()))


@pytest.mark.parametrize("kind", ["TIFF", "JPEG", "PNG"])
def test_metadata_of_a_picture_is_not_logged_whatever_the_level(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    about = Image.Exif()
    about[ExifTags.Base.ImageDescription] = PLANTED

    accept_upload(SimpleUploadedFile("cell.jpg", encoded(drawn_cell(5, (64, 64)), kind, exif=about)))

    assert PLANTED not in caplog.text


def test_fault_of_ours_logs_where_it_happened_but_not_what_was_typed(
    sign_in: Callable[[User], Client],
    technologist: User,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Through the real formatter: one that prints local variables would print what people typed."""

    def broken(**_: Any) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr("classifier.services.open_case", broken)
    client = sign_in(technologist)
    client.raise_request_exception = False
    handler = logging.StreamHandler()
    formatters: Any = settings.LOGGING["formatters"]
    formatter = formatters["console"]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=formatter["processor"]))
    logging.getLogger().addHandler(handler)
    try:
        client.post(reverse("case-open"), {"accession_number": PLANTED})
    finally:
        logging.getLogger().removeHandler(handler)

    logged = capsys.readouterr().err
    assert "RuntimeError" in logged
    assert "case_open" in logged
    assert PLANTED not in logged


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/", "/"),
        ("/cases/?q=typed", "/cases/"),
        ("/cases/2f6d1e0a-0000-4000-8000-000000000000/", "/cases/2f6d1e0a-0000-4000-8000-000000000000/"),
        ("/cases/Smith-A-1001/", "(no such page)"),
    ],
)
def test_path_is_logged_as_route_and_ids(path: str, shown: str) -> None:
    assert shown_path(RequestFactory().get(path)) == shown


def test_key_of_a_password_reset_is_not_logged() -> None:
    path = reverse("account_reset_password_from_key", kwargs={"uidb36": "abc", "key": "SECRETKEY"})

    assert "SECRETKEY" not in shown_path(RequestFactory().get(path))


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, "1.2.3.4", "127.0.0.1"),
        (1, "1.2.3.4, 9.9.9.9", "9.9.9.9"),
        (2, "1.2.3.4, 9.9.9.9", "1.2.3.4"),
        (1, "", "127.0.0.1"),
        (1, "nonsense", None),
    ],
)
def test_forwarded_address_is_believed_from_trusted_proxies_only(
    proxies: int, forwarded: str, address: str | None, settings: Any
) -> None:
    settings.TRUSTED_PROXIES = proxies

    assert client_address(RequestFactory().get("/", headers={"X-Forwarded-For": forwarded})) == address


def test_health_probes_leave_no_trace_in_the_log(db: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="django_structlog")

    Client().get("/healthz")

    assert not [record for record in caplog.records if record.name.startswith("django_structlog")]


def test_log_lines_of_a_request_share_its_id(
    sign_in: Callable[[User], Client], technologist: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    sign_in(technologist).get(reverse("home"))

    lines: list[Any] = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    finished = [line for line in lines if line["event"] == "request_finished"]
    assert finished[-1]["request"] == "GET /"
    assert {line["request_id"] for line in lines if line["event"].startswith("request_")} == {
        finished[-1]["request_id"]
    }
    assert "user_agent" not in str(lines)


def test_request_with_a_token_is_one_line_that_names_its_user(
    api: Callable[..., APIClient], technologist: User, caplog: pytest.LogCaptureFixture
) -> None:
    client = api(technologist)
    caplog.set_level(logging.INFO)

    client.get("/api/v1/cell-types/")

    [line] = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    assert (line["event"], line["request"]) == ("request_finished", "GET /api/v1/cell-types/")
    assert (line["code"], line["user_id"]) == (200, str(technologist.pk))
