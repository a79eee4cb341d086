"""`verify_storage` and the check that runs all the time: what is missing, altered, or known to nobody."""

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import AuditEvent
from classifier import stored_files
from classifier.models import CellImage

MakeImage = Callable[..., CellImage]
pytestmark = pytest.mark.django_db


def verified(*arguments: str) -> tuple[int, dict[str, Any]]:
    out = io.StringIO()
    try:
        call_command("verify_storage", "--json", *arguments, stdout=out)
    except SystemExit as end:
        return int(end.code or 0), json.loads(out.getvalue())
    return 0, json.loads(out.getvalue())


def test_sound_storage_is_said_to_be_sound(make_image: MakeImage) -> None:
    make_image()
    make_image("classified")
    code, found = verified()
    assert (code, found["sound"], found["images"], found["hashed"], found["orphans"]) == (0, True, 2, 2, [])


@pytest.mark.parametrize("damage", ["gone", "one byte", "shorter"])
def test_missing_or_altered_original_is_named_by_its_id(damage: str, make_image: MakeImage) -> None:
    image, _ = make_image(), make_image()
    path = Path(image.file.path)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage == "one byte" else content[:-1])

    code, found = verified()
    assert (code, found["missing"] + found["altered"]) == (1, [str(image.pk)])
    assert bool(found["missing"]) == (damage == "gone")


def test_sample_hashes_so_many_and_sees_every_gap(make_image: MakeImage) -> None:
    images = [make_image() for _ in range(4)]
    Path(images[0].file.path).unlink()
    code, found = verified("--sample", "2")
    assert code == 1
    assert found["missing"] == [str(images[0].pk)]
    assert found["hashed"] <= 2


def test_file_that_no_row_names_is_listed_after_an_hour_and_removed_when_asked(make_image: MakeImage) -> None:
    image = make_image()
    folder = Path(image.file.path).parent
    young, old = folder / "young.jpg", folder / "0b7ad3a8-9b3c-4a53-9f5e-6f0ac0f0a001.jpg"
    for path in (young, old):
        path.write_bytes(b"left over")
    os.utime(old, (time.time() - 4000, time.time() - 4000))
    os.utime(image.file.path, (time.time() - 4000, time.time() - 4000))
    name = str(old.relative_to(default_storage.path("")))

    code, found = verified()
    assert (code, found["orphans"]) == (0, [name])
    assert old.exists()

    code, found = verified("--remove-orphans")
    assert (code, found["removed"]) == (0, 1)
    assert (old.exists(), young.exists(), Path(image.file.path).exists()) == (False, True, True)
    assert AuditEvent.objects.get(action="orphaned_files_removed").facts == {
        "files": 1,
        "ids": ["0b7ad3a8-9b3c-4a53-9f5e-6f0ac0f0a001"],
    }


def test_steady_check_reads_short_lists(make_image: MakeImage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What PostgreSQL would collect for an iterator is as long as the table."""
    cache.clear()
    for _ in range(3):
        make_image()
    monkeypatch.setattr(stored_files, "IN_A_LIST", 2)
    with CaptureQueriesContext(connection) as queries:
        assert stored_files.check_some().images == 3
    read = [query["sql"] for query in queries if 'FROM "classifier_cellimage"' in query["sql"]]
    assert [sql.endswith("LIMIT 2") for sql in read if "ORDER BY" in sql] == [True] * 3
    cache.clear()


def test_steady_check_goes_round_through_all_images_and_keeps_what_it_found(
    make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.clear()
    images = sorted((make_image() for _ in range(3)), key=lambda image: image.pk)
    Path(images[0].file.path).unlink()
    # One image a time.
    monkeypatch.setattr(stored_files, "SLICE_SECONDS", -1.0)

    seen = [stored_files.check_some().images for _ in range(3)]
    assert seen == [1, 2, 3]
    assert stored_files.latest_outcome()["missing"] == [str(images[0].pk)]
    # The next round begins anew: what was mended is no longer told.
    images[0].file.save("original.jpg", ContentFile(b""), save=False)
    for _ in range(2):
        stored_files.check_some()
    assert stored_files.latest_outcome()["images"] <= 3
    cache.clear()
