"""ZIP archives for tests: good ones, odd ones, hostile ones."""

import io
import zipfile
from collections.abc import Mapping

from tests.pictures import jpeg_of_cell


def zip_of(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def cells(count: int, first: int = 0, folder: str = "") -> dict[str, bytes]:
    """Small, different pictures of cells by name."""
    return {f"{folder}cell-{number:04}.jpg": jpeg_of_cell(first + number, (96, 96)) for number in range(count)}
