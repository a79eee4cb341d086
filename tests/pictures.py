"""Pictures for tests: real cells where the data sets are at hand, drawn ones everywhere."""

import io
import random
from functools import cache, lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from ml.data_folder import data_folder


@cache
def real_image_files() -> list[Path]:
    """Some real cell images of every class, in a fixed order that alternates between the classes."""
    folders = sorted((data_folder() / "pbc").glob("*/"))
    columns = [sorted(folder.glob("*.jpg"))[:60] for folder in folders]
    return [file for row in zip(*columns, strict=False) for file in row]


def drawn_cell(seed: int, size: tuple[int, int] = (224, 224)) -> Image.Image:
    """A drawn leukocyte among red cells: no substitute for a real one, but a picture of the right kind."""
    chance = random.Random(seed)
    picture = Image.new("RGB", size, (232, 214, 208))
    draw = ImageDraw.Draw(picture)
    radius = min(size) // 8
    for _ in range(9):
        x, y = chance.randrange(size[0]), chance.randrange(size[1])
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), (214, 150, 150), (196, 128, 132))
    x, y = size[0] // 2 + chance.randrange(-8, 9), size[1] // 2 + chance.randrange(-8, 9)
    radius = int(min(size) * 0.22)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), (186, 178, 214))
    for _ in range(3):
        dx, dy = chance.randrange(-radius // 2, radius // 2), chance.randrange(-radius // 2, radius // 2)
        lobe = radius // 2
        draw.ellipse((x + dx - lobe, y + dy - lobe, x + dx + lobe, y + dy + lobe), (92, 58, 138))
    return picture.filter(ImageFilter.GaussianBlur(1.2))


@lru_cache(maxsize=1024)
def jpeg_of_cell(seed: int, size: tuple[int, int] = (224, 224)) -> bytes:
    return encoded(drawn_cell(seed, size), "JPEG", quality=90)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
