import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ml.errors import UnreadableImage
from ml.images import decode, shrink

from .smears import draw_cell, encoded


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_every_usual_format_gives_the_same_pixels(form: str) -> None:
    cell = draw_cell()
    options = {"quality": 95} if form in {"JPEG", "WEBP"} else {}
    decoded = decode(encoded(cell, form, **options))
    assert decoded.shape == cell.shape
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - cell).mean() < 6


def test_heic_of_a_phone_is_read() -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    assert decode(encoded(draw_cell(), "HEIF")).shape == (224, 224, 3)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


@pytest.mark.parametrize("mode", ["CMYK", "L", "P", "1", "RGBA", "LA"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    image = Image.fromarray(draw_cell()).convert(mode)
    decoded = decode(saved(image, "TIFF" if mode == "CMYK" else "PNG"))
    assert decoded.shape == (224, 224, 3)
    assert decoded.std() > 10


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    grey = draw_cell().mean(axis=2)
    sixteen = (grey * 257).astype(np.uint16)
    decoded = decode(saved(Image.fromarray(sixteen), "PNG"))
    assert np.abs(decoded[..., 0] - grey).max() <= 1.5


def test_orientation_is_applied() -> None:
    upright = Image.fromarray(draw_cell()[:, :200])
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode(saved(upright, "JPEG", exif=exif.tobytes(), quality=95))
    assert turned.shape == (200, 224, 3)


def test_transparency_lies_on_white() -> None:
    clear = np.zeros((64, 64, 4), np.uint8)
    assert (decode(saved(Image.fromarray(clear), "PNG")) == 255).all()


def test_first_frame_of_an_animation_is_taken() -> None:
    first, second = Image.fromarray(draw_cell()), Image.fromarray(255 - draw_cell())
    data = saved(first, "GIF", save_all=True, append_images=[second])
    assert np.abs(decode(data).astype(int) - draw_cell()).mean() < 20


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "unreadable"),
        (b"no picture at all", "unreadable"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unreadable"),
        (encoded(draw_cell(), "JPEG")[:1500], "unreadable"),
        (encoded(draw_cell(), "PNG")[:4000], "unreadable"),
        (encoded(draw_cell(31)), "too_small"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_code(data: bytes, code: str) -> None:
    with pytest.raises(UnreadableImage) as refusal:
        decode(data)
    assert refusal.value.code == code
    assert refusal.value.message.endswith(".")


def test_a_decompression_bomb_is_refused_before_it_is_unpacked() -> None:
    small = bytearray(encoded(draw_cell()))
    small[16:24] = struct.pack(">II", 50_000, 50_000)
    small[29:33] = struct.pack(">I", zlib.crc32(small[12:29]))
    bomb = bytes(small)
    with pytest.raises(UnreadableImage) as refusal:
        decode(bomb)
    assert refusal.value.code == "too_large"


def test_shrinking_keeps_the_proportions_and_never_enlarges() -> None:
    field = np.zeros((480, 640, 3), np.uint8)
    assert shrink(field, 160).shape == (120, 160, 3)
    assert shrink(field, 1000) is field
