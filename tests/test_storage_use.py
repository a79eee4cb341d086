"""How much room pictures take and is left, and the banner that says when it runs out."""

from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from classifier import services, storage_use
from classifier.models import CellImage
from classifier.storage_use import Disk, Originals, disk, originals_of, size_in_words

SignIn = Callable[[User], Client]
Usage = namedtuple("Usage", "total used free")
GB = 1000**3


@pytest.fixture(autouse=True)
def nothing_looked_at() -> Iterator[None]:
    storage_use.looked.clear()
    yield
    storage_use.looked.clear()


@pytest.fixture
def disk_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Path]]:
    def pretend(*, total: int, free: int) -> list[Path]:
        looked: list[Path] = []

        def usage(path: Path) -> Usage:
            looked.append(path)
            return Usage(total, total - free, free)

        monkeypatch.setattr("classifier.storage_use.shutil.disk_usage", usage)
        return looked

    return pretend


def test_originals_of_a_laboratory_are_the_kept_total_and_what_came_since(
    technologist: User, stranger: User, make_image: Callable[..., CellImage], django_assert_num_queries: Any
) -> None:
    sizes = [make_image().stored_bytes for _ in range(3)]
    make_image(case=services.open_case(actor=stranger), uploaded_by=stranger)

    # The first look of an hour also keeps what is older.
    originals_of(technologist.laboratory_id)  # type: ignore[arg-type]
    with django_assert_num_queries(2):
        found = originals_of(technologist.laboratory_id)  # type: ignore[arg-type]

    assert found == Originals(images=3, bytes=sum(sizes))


def test_laboratory_without_images_takes_nothing(technologist: User) -> None:
    assert originals_of(technologist.laboratory_id) == Originals(images=0, bytes=0)  # type: ignore[arg-type]


def test_real_disk_is_told_before_the_folder_exists(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path / "not" / "made" / "yet"

    found = disk()

    assert found is not None
    assert 0 < found.free <= found.total
    assert found.used == found.total - found.free


def test_disk_is_looked_at_once_a_minute(disk_of: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    looked = disk_of(total=100 * GB, free=50 * GB)
    moments = iter((1000.0, 1059.0, 1061.0))
    monkeypatch.setattr("classifier.storage_use.time.monotonic", lambda: next(moments))

    for _ in range(3):
        disk()

    assert len(looked) == 2


def test_disk_that_can_not_be_asked_is_no_fault(monkeypatch: pytest.MonkeyPatch, sign_in: SignIn, reader: User) -> None:
    def broken(_: Path) -> None:
        raise OSError

    monkeypatch.setattr("classifier.storage_use.shutil.disk_usage", broken)

    assert disk() is None
    assert sign_in(reader).get("/laboratory/").status_code == 200


@pytest.mark.parametrize(
    ("free", "total", "nearly_full"),
    [(11, 100, False), (9, 100, True), (3, 10, False), (1.9, 10, True), (390, 4000, True), (410, 4000, False)],
)
def test_disk_is_nearly_full_below_a_tenth_or_two_gigabytes(free: float, total: int, nearly_full: bool) -> None:
    assert Disk(free=int(free * GB), total=total * GB).is_nearly_full is nearly_full


def test_when_to_warn_is_a_setting(settings: Any) -> None:
    settings.DISK_FREE_WARNING = (0.5, 0)

    assert Disk(free=40 * GB, total=100 * GB).is_nearly_full
    assert not Disk(free=60 * GB, total=100 * GB).is_nearly_full


def test_settings_page_says_how_much_is_taken_and_free(
    disk_of: Callable[..., list[Path]], sign_in: SignIn, reader: User, make_image: Callable[..., CellImage]
) -> None:
    disk_of(total=100 * GB, free=50 * GB)
    make_image(stored_bytes=1_400_000)

    page = " ".join(sign_in(reader).get("/laboratory/").content.decode().split())

    assert "The originals of 1 image take 1.4 MB. On the disk that they lie on, 50 GB of 100 GB are free." in page


@pytest.mark.parametrize("path", ["/", "/cases/", "/laboratory/", "/about/"])
@pytest.mark.parametrize(("free", "shown"), [(1, True), (50, False)])
def test_banner_stands_on_every_page_while_the_disk_is_nearly_full(
    path: str, free: int, shown: bool, disk_of: Callable[..., list[Path]], sign_in: SignIn, reader: User
) -> None:
    disk_of(total=100 * GB, free=free * GB)

    page = sign_in(reader).get(path).content.decode()

    assert ("The disk is nearly full: 1.0 GB of 100 GB are free." in page) is shown


def test_banner_is_for_those_who_are_signed_in(disk_of: Callable[..., list[Path]], db: None) -> None:
    disk_of(total=100 * GB, free=GB)

    assert "nearly full" not in Client().get("/about/").content.decode()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 KB"),
        (1_400_000, "1.4 MB"),
        (9_960_000, "10 MB"),
        (999_600, "1.0 MB"),
        (41_300_000_000, "41 GB"),
        (2_500_000_000_000, "2.5 TB"),
        (2_000_000_000_000_000, "2.0 PB"),
    ],
)
def test_sizes_are_written_for_people(number: int, words: str) -> None:
    assert size_in_words(number) == words
