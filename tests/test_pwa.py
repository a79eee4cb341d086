"""The application as something that a phone or a desktop can install."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from django.contrib.staticfiles import finders
from django.test import Client
from django.urls import resolve
from PIL import Image

MANIFEST = "/static/manifest.webmanifest"


def manifest() -> dict[str, Any]:
    found = finders.find("manifest.webmanifest")
    assert isinstance(found, str)
    read: dict[str, Any] = json.loads(Path(found).read_text())
    return read


def icons() -> list[dict[str, str]]:
    said = manifest()
    return [*said["icons"], *(icon for shortcut in said["shortcuts"] for icon in shortcut["icons"])]


@pytest.mark.parametrize("icon", icons(), ids=lambda icon: f"{icon['src']}")
def test_each_icon_is_there_in_the_size_that_is_said(icon: dict[str, str]) -> None:
    address = urljoin(MANIFEST, icon["src"])
    found = finders.find(address.removeprefix("/static/"))

    assert isinstance(found, str)
    with Image.open(found) as picture:
        assert f"{picture.width}x{picture.height}" == icon["sizes"]
        assert picture.format == "PNG"


def test_there_are_icons_for_every_shape() -> None:
    kinds = {(icon["sizes"], icon["purpose"]) for icon in manifest()["icons"]}

    assert kinds >= {(size, purpose) for size in ("192x192", "512x512") for purpose in ("any", "maskable")}


def test_maskable_icons_fill_their_square_and_keep_the_mark_inside() -> None:
    """A system may cut away the outer tenth on every side."""
    for icon in manifest()["icons"]:
        if icon["purpose"] == "maskable":
            found = finders.find(urljoin(MANIFEST, icon["src"]).removeprefix("/static/"))
            with Image.open(str(found)) as opened:
                picture = opened.convert("RGBA")
            size = picture.width
            ground = picture.getpixel((0, 0))
            rim = [
                picture.getpixel(place)
                for at in range(size)
                for edge in (0, size // 10, size - 1 - size // 10, size - 1)
                for place in ((at, edge), (edge, at))
            ]
            assert ground[3] == 255  # type: ignore[index]
            assert set(rim) == {ground}


def test_start_and_shortcuts_lead_to_pages_of_ours() -> None:
    said = manifest()

    for address in [said["start_url"], *(shortcut["url"] for shortcut in said["shortcuts"])]:
        resolve(urljoin(MANIFEST, address))
    assert urljoin(MANIFEST, said["scope"]) == "/"
    assert said["display"] == "standalone"
    assert len(said["short_name"]) <= 12


def test_pages_name_manifest_and_icons_and_the_policy_lets_them_load(db: None) -> None:
    response = Client().get("/about/")
    page = response.content.decode()

    assert f'<link rel="manifest" href="{MANIFEST}">' in page
    assert '<link rel="apple-touch-icon" href="/static/icons/apple-touch-icon.png">' in page
    assert "manifest-src 'self'" in response["Content-Security-Policy"]
    assert 'name="theme-color"' in page
