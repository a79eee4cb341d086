"""The cast and the stage: real servers, a laboratory with its people, a stranger from another one, and cell images."""

import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from botocore.loaders import JSONFileLoader
from django.conf import settings as configured
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, connections
from django.test import Client, TransactionTestCase, override_settings
from rest_framework.test import APIClient

from accounts.fact_triggers import install_fact_triggers
from accounts.models import Laboratory, User
from accounts.roles import Role
from accounts.tokens import create_token
from classifier import model_registry, services, tasks
from classifier.models import Case, CellImage, ModelVersion
from ml.model_card import ModelCard, shipped_bundle, verify_bundle
from tests.emptying import empty_database
from tests.object_store import ObjectStore
from tests.pictures import jpeg_of_cell, real_image_files
from tests.servers import RunningServer
from tests.stage import POSTGRESQL, REDIS, let_the_collector_forget

PASSWORD = "correct horse battery"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests that wait for minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="long: run by make test-all"))
        if item.get_closest_marker("browser") and POSTGRESQL is None:
            item.add_marker(pytest.mark.skip(reason="the browser tests run on PostgreSQL"))


FACT_TABLES = (
    "accounts_auditevent",
    "accounts_auditseal",
    "classifier_prediction",
    "classifier_review",
    "classifier_void",
    "classifier_report",
    "classifier_amendment",
    "classifier_laboratorysettings",
    "classifier_trialprediction",
    "classifier_batchmember",
    "classifier_rereadcell",
    "classifier_blindreading",
    "classifier_emergencyaccess",
    "classifier_emergencyend",
    "classifier_retentionrule",
    "classifier_legalhold",
    "classifier_removedpicture",
    "classifier_pseudonymerasure",
)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """On SQLite the tests empty tables by DELETE, which the facts' triggers would refuse."""
    with django_db_blocker.unblock():
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                for table in FACT_TABLES:
                    cursor.execute(f"DROP TRIGGER {table}_never_deleted")
    # What tests that commit leave behind is taken away by this and not by `flush`.
    setattr(TransactionTestCase, "_fixture_teardown", lambda _test: empty_database())  # noqa: B010
    let_the_collector_forget()


@pytest.fixture
def delete_triggers(db: None) -> None:
    """The triggers as they are in a real database, for one test and its transaction."""
    for table in FACT_TABLES:
        install_fact_triggers(connection, table)


STATIC_FILES = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}


@pytest.fixture(scope="session", autouse=True)
def static_files_as_they_are() -> Iterator[None]:
    """For the whole run: a page may still ask for something while the settings of its test are put back."""
    with override_settings(STORAGES={**configured.STORAGES, "staticfiles": STATIC_FILES}):
        yield


@pytest.fixture(autouse=True)
def private_files(settings: Any, tmp_path: Path) -> None:
    """Every test stores its originals and mails in a folder of its own, and signs in with a fast hash."""
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.STORAGES = {
        "default": {"BACKEND": "classifier.storage.PrivateStorage"},
        "staticfiles": STATIC_FILES,
    }


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """A real store that speaks S3."""
    store = ObjectStore()
    try:
        store.start()
        # Every test makes clients of its own, and each would read a megabyte of JSON about S3 again.
        with pytest.MonkeyPatch.context() as read_once:
            read = cache(JSONFileLoader().load_file)
            read_once.setattr(JSONFileLoader, "load_file", lambda _loader, path: read(path))
            yield store
    finally:
        store.stop()


@pytest.fixture
def in_a_bucket(object_store: ObjectStore, settings: Any, tmp_path: Path) -> ObjectStore:
    """This test's files lie in the store, below a prefix of its own; the worker's own disk is another folder."""
    options = {**object_store.options, "prefix": tmp_path.name + uuid4().hex[:8]}
    backend = "classifier.bucket_storage.BucketStorage"
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": backend, "OPTIONS": options}}
    settings.VAR_DIR = tmp_path / "var"
    return object_store


@pytest.fixture
def laboratory(db: None) -> Laboratory:
    return Laboratory.objects.create(name="Northside")


@pytest.fixture
def other_laboratory(db: None) -> Laboratory:
    return Laboratory.objects.create(name="Southside")


@pytest.fixture
def technologist(laboratory: Laboratory) -> User:
    return person("tess@north.example", "Tess Tanner", laboratory, Role.TECHNOLOGIST)


@pytest.fixture
def reader(laboratory: Laboratory) -> User:
    return person("ruth@north.example", "Ruth Reyes", laboratory, Role.READER)


@pytest.fixture
def auditor(laboratory: Laboratory) -> User:
    return person("arno@north.example", "Arno Abel", laboratory, Role.AUDITOR)


@pytest.fixture
def lab_admin(laboratory: Laboratory) -> User:
    return person("ada@north.example", "Ada Adler", laboratory, Role.ADMIN)


@pytest.fixture
def service_account(laboratory: Laboratory) -> User:
    return person("lis@north.example", "LIS", laboratory, Role.SERVICE)


@pytest.fixture
def stranger(other_laboratory: Laboratory) -> User:
    """A reader of another laboratory, who must see nothing of this one."""
    return person("stan@south.example", "Stan Stone", other_laboratory, Role.READER)


@pytest.fixture
def operator(db: None) -> User:
    """A platform operator: no laboratory, no patient data."""
    return User.objects.create_superuser("otto@platform.example", PASSWORD)


def person(email: str, name: str, laboratory: Laboratory, role: Role) -> User:
    # The database checks the row; the forms' checks before it would take ten times as long, and nobody mistypes here.
    user = User(email=email, full_name=name, laboratory=laboratory, role=role)
    user.set_password(PASSWORD)
    user.save()
    return user


@pytest.fixture
def sign_in() -> Callable[[User], Client]:
    def signed_in(user: User) -> Client:
        client = Client()
        client.force_login(user)
        return client

    return signed_in


@pytest.fixture
def api() -> Callable[..., APIClient]:
    """An API client of a user, by a real token."""

    def client_of(user: User | None, scopes: tuple[str, ...] = ()) -> APIClient:
        client = APIClient()
        if user is not None:
            client.credentials(HTTP_AUTHORIZATION=f"Token {create_token(user=user, scopes=scopes)}")
        return client

    return client_of


@pytest.fixture(scope="session")
def shipped_card() -> ModelCard:
    """The card of the shipped bundle, whose files are hashed once and not for every test."""
    return verify_bundle(shipped_bundle())


@pytest.fixture
def model_version(db: None, shipped_card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> ModelVersion:
    """The shipped model, registered and active."""
    with monkeypatch.context() as known:
        known.setattr(model_registry, "verify_bundle", lambda _bundle: shipped_card)
        return model_registry.register_bundle(shipped_bundle())


@pytest.fixture
def case(technologist: User) -> Case:
    return services.open_case(actor=technologist, accession_number="A-1001")


@pytest.fixture
def smear() -> bytes:
    """A JPEG of a blood cell: a real one where the data sets are at hand, else a drawn one."""
    files = real_image_files()
    return files[0].read_bytes() if files else jpeg_of_cell(seed=1)


@pytest.fixture
def as_upload() -> Callable[..., SimpleUploadedFile]:
    def upload(content: bytes, name: str = "cell.jpg") -> SimpleUploadedFile:
        return SimpleUploadedFile(name, content)

    return upload


@pytest.fixture
def make_image(technologist: User, case: Case) -> Callable[..., CellImage]:
    """Images as rows with a stored picture: queued by default, or moved to `status` with what belongs to it."""
    from tests.factories import image_in_state

    def make(status: str = "queued", **fields: Any) -> CellImage:
        return image_in_state(status, **{"case": case, "uploaded_by": technologist, **fields})

    return make


@pytest.fixture
def worker(transactional_db: None, model_version: ModelVersion) -> Iterator[None]:
    """Somebody who classifies what is queued, and checks archives, in a thread beside the test."""
    done = threading.Event()

    def work() -> None:
        try:
            while not done.wait(0.1):
                tasks.classify_queued()
        finally:
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    done.set()
    thread.join()


@pytest.fixture
def redis_server() -> Iterator[RunningServer]:
    """The broker itself, for tests that take it away; it is back afterwards."""
    yield REDIS
    REDIS.start()
