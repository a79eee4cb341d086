"""Static files are collected when there is a reason to, and not at every start."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from hematovision import static_files
from hematovision.static_files import collect_static_files


@pytest.fixture
def source(settings: Any, tmp_path: Path) -> Path:
    """A folder with one script, collected into another one."""
    folder = tmp_path / "static"
    folder.mkdir()
    (folder / "app.js").write_text("let first;")
    settings.STATICFILES_DIRS = [folder]
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    settings.STATIC_ROOT = tmp_path / "collected"
    storage = {"BACKEND": "hematovision.static_files.HashedStaticFiles"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": storage}
    return folder


def test_static_files_are_collected_once_and_again_when_one_has_changed(source: Path, tmp_path: Path) -> None:
    stamp = tmp_path / "stamp"
    assert collect_static_files(stamp)
    assert not collect_static_files(stamp)

    later = time.time() + 5  # collectstatic looks at whole seconds
    (source / "app.js").write_text("let other;")  # as long as before
    os.utime(source / "app.js", (later, later))
    assert collect_static_files(stamp)
    assert (tmp_path / "collected" / "app.js").read_text() == "let other;"
    assert not collect_static_files(stamp)

    (source / "new.js").write_text("let more;")
    assert collect_static_files(stamp)
    assert list((tmp_path / "collected").glob("new.*.js"))


def test_source_that_changes_while_it_is_collected_is_collected_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collect(*command: str, **options: Any) -> None:
        call_command(*command, **options)
        (source / "app.js").write_text("let later;")

    monkeypatch.setattr(static_files, "call_command", collect)
    stamp = tmp_path / "stamp"
    assert collect_static_files(stamp)
    assert collect_static_files(stamp)


def test_what_was_lost_of_the_collected_files_comes_back(source: Path, tmp_path: Path) -> None:
    stamp = tmp_path / "stamp"
    assert collect_static_files(stamp)
    [hashed] = (tmp_path / "collected").glob("app.*.js")
    whole = hashed.read_text()

    hashed.unlink()
    assert collect_static_files(stamp)
    assert hashed.read_text() == whole

    hashed.write_text("")  # as a full disk leaves it
    assert collect_static_files(stamp)
    assert hashed.read_text() == whole
    assert not collect_static_files(stamp)
