"""docs/api.md, run as it is written, against a live server."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.urls import URLResolver, get_resolver

from accounts.models import User
from accounts.tokens import create_token
from classifier.models import Batch, CellImage, ImageStatus, Report
from tests.conftest import PASSWORD
from tests.pictures import jpeg_of_cell, real_image_files

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"


def blocks(language: str) -> str:
    """All that the page says in one language, in its order."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found
    return "\n".join(found)


@pytest.fixture
def instance(live_server: Any, reader: User, worker: None, tmp_path: Path) -> dict[str, str]:
    """The environment that the page asks for, in a folder with a picture."""
    pictures = real_image_files()
    (tmp_path / "cell.jpg").write_bytes(pictures[0].read_bytes() if pictures else jpeg_of_cell(1))
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "HEMATOVISION": live_server.url,
        "TOKEN": create_token(user=reader),
        "PASSWORD": PASSWORD,
    }


def run(command: list[str], script: str, environment: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        command, input=script, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_walk_with_curl(instance: dict[str, str], tmp_path: Path) -> None:
    said = run(["bash", "-euo", "pipefail", "-s"], blocks("sh"), instance, tmp_path)

    assert '"probabilities"' in said
    assert "304\n7.2\n" in said
    assert [image.status for image in CellImage.objects.filter(batch=None)] == [ImageStatus.CLASSIFIED]
    batch = Batch.objects.get()
    assert f"\n{batch.state}\n" in said
    assert batch.finished_at is not None
    assert said.rstrip().splitlines()[-1].startswith("cell.jpg,")


def test_walk_with_python(instance: dict[str, str], tmp_path: Path, reader: User) -> None:
    said = run([sys.executable, "-I", "-"], blocks("python"), instance, tmp_path)

    report = Report.objects.get()
    assert report.signed_by == reader
    assert f"version 1 {report.sha256}" in said


def test_page_names_every_address_of_the_api() -> None:
    resolver = get_resolver().url_patterns
    [api] = [entry for entry in resolver if isinstance(entry, URLResolver) and str(entry.pattern) == "api/v1/"]
    routes = [re.sub(r"<\w+:(\w+)>", r"{\1}", str(entry.pattern)) for entry in api.url_patterns]

    listed = re.findall(r"^\| `/([^`]*)` \|", PAGE.read_text(), re.MULTILINE)

    assert sorted(listed) == sorted(routes)
