"""What an upload costs beside its picture: few statements, no file but the one that is kept, no new connection."""

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import NotSupportedError, connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from accounts.built_statements import prepared_cursor
from accounts.models import User
from classifier.models import Case, CellImage
from classifier.services import room as rooms
from classifier.services.room import Room
from classifier.uploads import MEMORY_BYTES, CappedUploadHandler
from classifier.visible_case import visible_case
from hematovision.postgresql.base import PREPARED_AFTER
from tests.pictures import jpeg_of_cell

Api = Callable[..., APIClient]


def upload(client: APIClient, case: Case, content: bytes) -> Any:
    file = SimpleUploadedFile("cell.jpg", content)
    return client.post(f"/api/v1/cases/{case.pk}/images/", {"file": file}, format="multipart")


def test_upload_is_six_statements_and_a_transaction(api: Api, technologist: User, case: Case) -> None:
    """Token, case, the same picture, the case held, the image, the audit event."""
    client = api(technologist)
    assert upload(client, case, jpeg_of_cell(1)).status_code == 202

    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert upload(client, case, jpeg_of_cell(2)).status_code == 202

    asked = [query["sql"] for query in queries if not query["sql"].startswith(("SAVEPOINT", "RELEASE"))]
    assert [sql.split()[0] for sql in asked] == ["SELECT", "SELECT", "SELECT", "SELECT", "INSERT", "INSERT"]
    assert len(queries) == 8


@pytest.mark.django_db(transaction=True)
def test_postgresql_plans_the_statements_of_uploads_once_a_connection(api: Api, technologist: User, case: Case) -> None:
    client = api(technologist)
    for seed in range(PREPARED_AFTER + 2):
        assert upload(client, case, jpeg_of_cell(seed)).status_code == 202
    # Whatever else is sent is not kept, and goes over Django's own cursor.
    assert list(Case.objects.filter(accession_number="A-1001")) == [case]
    if connection.vendor == "sqlite":
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        kept = [statement for (statement,) in cursor.fetchall()]

    assert len(kept) == len(set(kept))
    for table in ("accounts_apitoken", "classifier_case", "classifier_cellimage", "accounts_auditevent"):
        assert any(table in statement for statement in kept)
    assert not any("A-1001" in statement or 'accession_number" =' in statement for statement in kept)


@pytest.mark.django_db(transaction=True)
def test_prepared_statement_outlives_a_change_of_its_table_by_somebody_else(technologist: User, case: Case) -> None:
    """As while a newer version's migrations run beside web processes that still serve."""
    if connection.vendor == "sqlite":
        return
    for _ in range(PREPARED_AFTER + 2):
        assert visible_case(technologist, case.pk) == case
    migration = connection.copy()
    try:
        with migration.cursor() as cursor:
            cursor.execute("ALTER TABLE classifier_case ADD COLUMN added_later integer")
        assert visible_case(technologist, case.pk) == case
        with migration.cursor() as cursor:
            cursor.execute("ALTER TABLE classifier_case DROP COLUMN added_later")
        assert visible_case(technologist, case.pk) == case
    finally:
        migration.close()


def test_service_account_costs_no_more_while_there_is_plenty_of_room(
    api: Api, service_account: User, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "room", Room())
    client = api(service_account)
    assert upload(client, case, jpeg_of_cell(1)).status_code == 202

    with CaptureQueriesContext(connection) as queries:
        assert upload(client, case, jpeg_of_cell(2)).status_code == 202

    assert len(queries) == 8


def test_queue_is_counted_again_when_its_room_is_nearly_given_away(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.QUEUE_LIMIT = 100
    counted: list[int] = []
    moment = [0.0]

    def waiting() -> int:
        counted.append(1)
        return 40

    monkeypatch.setattr(rooms, "waiting", waiting)
    monkeypatch.setattr("classifier.services.room.time.monotonic", lambda: moment[0])
    room = Room()

    assert all(room.take() for _ in range(6))
    assert len(counted) == 1, "a tenth of the 60 that are free"
    assert room.take()
    assert len(counted) == 2
    moment[0] = 1.5
    assert room.take()
    assert len(counted) == 3, "a count is believed for a second"
    monkeypatch.setattr(rooms, "waiting", lambda: 100)
    moment[0] = 3
    assert not room.take()


@pytest.mark.parametrize(("size", "in_memory"), [(1000, True), (MEMORY_BYTES + 1, False)])
def test_small_picture_needs_no_temporary_file(size: int, in_memory: bool, technologist: User) -> None:
    request: Any = type("Request", (), {"user": technologist})()
    handler = CappedUploadHandler(request)
    handler.new_file("file", "cell.jpg", "image/jpeg", size)
    for start in range(0, size, 1000):
        handler.receive_data_chunk(b"x" * min(1000, size - start), start)
    file = handler.file_complete(size)

    assert file.file._rolled is not in_memory  # type: ignore[union-attr]
    assert file.size == size
    assert file.read() == b"x" * size
    file.close()


def test_only_the_first_picture_of_a_form_is_held_in_memory(technologist: User) -> None:
    request: Any = type("Request", (), {"user": technologist})()
    handler = CappedUploadHandler(request)
    files = []
    for _ in range(3):
        handler.new_file("file", "cell.jpg", "image/jpeg", 1000)
        handler.receive_data_chunk(b"x" * 1000, 0)
        files.append(handler.file_complete(1000))

    assert [file.file._rolled for file in files] == [False, True, True]  # type: ignore[union-attr]
    for file in files:
        file.close()


def test_upload_that_breaks_off_leaves_no_file(technologist: User) -> None:
    request: Any = type("Request", (), {"user": technologist})()
    for field in ("file", "archive"):
        handler = CappedUploadHandler(request)
        handler.new_file(field, "cell.jpg", "image/jpeg", 10)
        handler.receive_data_chunk(b"x", 0)
        handler.upload_interrupted()

        assert handler.file.closed


def test_same_picture_is_found_without_another_file(api: Api, technologist: User, case: Case) -> None:
    client = api(technologist)
    first = upload(client, case, jpeg_of_cell(3))
    stored = set(storage_files())

    again = upload(client, case, jpeg_of_cell(3))

    assert (again.status_code, again.json()) == (200, first.json())
    assert set(storage_files()) == stored
    assert CellImage.objects.count() == 1


def storage_files() -> list[str]:
    return [str(path) for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()]


@pytest.mark.django_db(transaction=True)
def test_kept_connection_is_looked_at_without_asking_and_one_that_ended_is_noticed(technologist: User) -> None:
    assert settings.DATABASES["default"]["CONN_MAX_AGE"] == 60
    if connection.vendor == "sqlite":
        return
    connection.ensure_connection()
    assert connection.is_usable()
    with CaptureQueriesContext(connection) as queries:
        assert connection.is_quiet()  # type: ignore[attr-defined]
        assert connection.is_usable()
    assert len(queries) == 0

    own = connection.connection.info.backend_pid
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [own])
    finally:
        other.close()

    assert not connection.is_usable()
    connection.close()
    assert User.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_connection_whose_prepared_statement_is_out_of_date_is_not_kept() -> None:
    if connection.vendor == "sqlite":
        return
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("CREATE TABLE altered (n integer)")
        for _ in range(PREPARED_AFTER + 2):
            with prepared_cursor(connection) as cursor:
                cursor.execute("SELECT n FROM altered")
        with other.cursor() as cursor:
            cursor.execute("ALTER TABLE altered ALTER n TYPE bigint")

        with pytest.raises(NotSupportedError), prepared_cursor(connection) as cursor:
            cursor.execute("SELECT n FROM altered")
        connection.close_if_unusable_or_obsolete()

        with prepared_cursor(connection) as cursor:
            cursor.execute("SELECT n FROM altered")
            assert cursor.fetchall() == []
    finally:
        with other.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS altered")
        other.close()
