"""What is done with the bytes that people send: each kind has one defined answer, and nothing else gets through."""

import hashlib
import io
import struct
import zlib
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from classifier.errors import UploadRejected
from classifier.jpeg import NotPlainJpeg, without_metadata
from classifier.uploads import accept_upload, shown_name
from tests.pictures import drawn_cell, encoded, jpeg_of_cell

CELL = drawn_cell(7)
SMALL = drawn_cell(8, (40, 40))


def accept(content: bytes, name: str = "cell.jpg") -> Any:
    return accept_upload(SimpleUploadedFile(name, content))


def code_of(content: bytes, name: str = "cell.jpg") -> tuple[str, int]:
    with pytest.raises(UploadRejected) as refused:
        accept(content, name)
    assert refused.value.message.endswith(".")
    assert "Traceback" not in refused.value.message
    return refused.value.code, refused.value.status


def stored_picture(content: bytes) -> Any:
    return Image.open(io.BytesIO(accept(content).content))


def png_bomb(side: int) -> bytes:
    """A well-formed PNG of side x side black pixels in a few kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * 64), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


REFUSED: dict[str, tuple[bytes, str, int]] = {
    "empty file": (b"", "empty_file", 400),
    "text named .jpg": (b"patient list\n" * 50, "not_an_image", 400),
    "HTML named .jpg": (b"<html><script>alert(1)</script></html>", "not_an_image", 400),
    "truncated JPEG": (jpeg_of_cell(1)[:2000], "damaged_image", 400),
    "JPEG of which only the head is there": (jpeg_of_cell(1)[:200], "damaged_image", 400),
    "truncated PNG": (encoded(CELL, "PNG")[:5000], "damaged_image", 400),
    "50,000 x 50,000 PNG": (png_bomb(50_000), "too_many_pixels", 400),
    "more than 40 megapixels": (encoded(Image.new("L", (7000, 6000)), "PNG"), "too_many_pixels", 400),
    "tiny picture": (encoded(Image.new("RGB", (31, 200)), "PNG"), "too_few_pixels", 400),
    "GIF": (encoded(CELL, "GIF"), "unsupported_format", 415),
    "animated GIF": (encoded(CELL, "GIF", save_all=True, append_images=[CELL.rotate(90)]), "unsupported_format", 415),
    "animated WebP": (encoded(CELL, "WEBP", save_all=True, append_images=[CELL.rotate(90)]), "several_pictures", 400),
    "TIFF of two pages": (
        encoded(CELL, "TIFF", save_all=True, append_images=[CELL.rotate(90)]),
        "several_pictures",
        400,
    ),
    "SVG": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported_format", 415),
    "PDF": (b"%PDF-1.7\n" + b"0" * 500, "not_an_image", 400),
}


def tiff_with_giant_tile() -> bytes:
    """64 x 64 pixels in one tile of 32768 x 32768: decoding would take gigabytes."""
    entries = [
        (256, 4, 64), (257, 4, 64), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1),
        (322, 4, 32768), (323, 4, 32768), (324, 4, 8), (325, 4, 4),
    ]  # fmt: skip
    head = b"II*\0" + struct.pack("<I", 16) + b"\x78\x9c\x03\0" + bytes(4)
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return head + struct.pack("<H", len(entries)) + body + bytes(4)


def long_chain_of_frames() -> bytes:
    """A TIFF of 20,000 tiny frames: walking the whole chain takes many seconds."""
    picture = encoded(Image.new("L", (64, 64)), "TIFF")
    (first,) = struct.unpack_from("<I", picture, 4)
    (count,) = struct.unpack_from("<H", picture, first)
    entries = picture[first + 2 : first + 2 + 12 * count]
    chain, at = b"", len(picture)
    for _ in range(20_000):
        at += 2 + len(entries) + 4
        chain += struct.pack("<H", count) + entries + struct.pack("<I", at)
    return (
        picture[: first + 2 + 12 * count] + struct.pack("<I", len(picture)) + picture[first + 6 + 12 * count :] + chain
    )


def run_length_bmp() -> bytes:
    palette = bytes(range(256)) * 4
    rows = b"".join(bytes([64, 7, 0, 0]) for _ in range(64)) + b"\0\1"
    offset = 54 + len(palette)
    head = b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset)
    return head + struct.pack("<IiiHHIIiiII", 40, 64, 64, 1, 8, 1, len(rows), 0, 0, 256, 0) + palette + rows


REFUSED |= {
    "TIFF with a giant tile": (tiff_with_giant_tile(), "too_many_pixels", 400),
    "TIFF with an endless chain of frames": (long_chain_of_frames(), "several_pictures", 400),
    "run-length BMP": (run_length_bmp(), "unsupported_format", 415),
}


@pytest.mark.parametrize(("content", "code", "status"), REFUSED.values(), ids=REFUSED)
def test_bad_file_is_refused_with_a_code_and_a_sentence(content: bytes, code: str, status: int) -> None:
    assert code_of(content) == (code, status)


def test_file_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(django_settings, "MAX_IMAGE_BYTES", 1000)

    assert code_of(jpeg_of_cell(1)) == ("file_too_large", 413)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP", "HEIF"])
def test_every_accepted_format_is_kept_as_what_browsers_show(kind: str) -> None:
    stored = stored_picture(encoded(CELL, kind))

    assert stored.format in {"JPEG", "PNG"}
    assert (stored.size, stored.mode) == (CELL.size, "RGB")


def test_name_and_declared_type_do_not_decide() -> None:
    assert accept(encoded(CELL, "PNG"), "cell.exe").extension == "png"


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("CMYK", "JPEG"), ("L", "JPEG"), ("P", "PNG"), ("1", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("CMYK", "TIFF")],
)
def test_every_colour_mode_becomes_the_same_picture(mode: str, kind: str) -> None:
    stored = stored_picture(encoded(CELL.convert(mode), kind)).convert("RGB")

    expected = CELL.convert(mode).convert("RGB")
    assert mean_difference(stored, expected) < 6


def test_sixteen_bit_greys_are_scaled_not_clipped() -> None:
    greys = Image.new("I;16", (64, 64))
    greys.putdata([y * 64 * 16 + x * 16 for y in range(64) for x in range(64)])

    stored = stored_picture(encoded(greys, "PNG")).convert("L")

    assert stored.getpixel((0, 0)) == 0
    assert 250 <= stored.getpixel((63, 63)) <= 255
    assert abs(stored.getpixel((0, 32)) - 128) <= 2


def test_transparent_becomes_white() -> None:
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))

    assert stored_picture(encoded(clear, "PNG")).getpixel((10, 10)) == (255, 255, 255)


def test_plain_jpeg_keeps_its_pixels_bit_for_bit() -> None:
    received = jpeg_of_cell(3)

    accepted = accept(received)

    assert accepted.extension == "jpg"
    assert Image.open(io.BytesIO(accepted.content)).tobytes() == Image.open(io.BytesIO(received)).tobytes()


def test_progressive_jpeg_keeps_its_pixels_bit_for_bit() -> None:
    received = encoded(CELL, "JPEG", progressive=True, quality=95)

    assert Image.open(io.BytesIO(without_metadata(received))).tobytes() == Image.open(io.BytesIO(received)).tobytes()


def jpeg_with_metadata() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "PLANTED-NAME"
    exif[ExifTags.Base.ImageDescription] = "PLANTED-PATIENT"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSMapDatum] = "PLANTED-PLACE"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    jpeg = encoded(CELL, "JPEG", exif=exif, comment=b"PLANTED-COMMENT", icc_profile=profile, xmp=b"<x>PLANTED-XMP</x>")
    return jpeg + b"PLANTED-TAIL"


def png_with_metadata() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "PLANTED-COMMENT")
    info.add_itxt("Author", "PLANTED-NAME")
    return encoded(CELL, "PNG", pnginfo=info) + b"PLANTED-TAIL"


@pytest.mark.parametrize("received", [jpeg_with_metadata(), png_with_metadata()], ids=["JPEG", "PNG"])
def test_no_metadata_survives(received: bytes) -> None:
    assert b"PLANTED" in received

    kept = accept(received).content

    assert b"PLANTED" not in kept
    picture = Image.open(io.BytesIO(kept))
    picture.load()
    assert not picture.getexif()
    assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi"}


def test_turned_phone_photo_is_stored_upright() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    wide = Image.new("RGB", (200, 100), "white")
    wide.paste((255, 0, 0), (0, 0, 100, 100))

    accepted = accept(encoded(wide, "JPEG", exif=exif, quality=95))

    stored: Any = Image.open(io.BytesIO(accepted.content))
    assert (stored.size, accepted.width, accepted.height) == ((100, 200), 100, 200)
    red, _, blue = stored.getpixel((50, 20))
    assert red > 200 > 60 > blue


def profile_with_red_and_green_exchanged() -> bytes:
    """An RGB profile whose primaries differ from sRGB so much that ignoring it could not go unnoticed."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", profile, 128)
    tags = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))


def test_colours_of_another_profile_are_brought_to_srgb() -> None:
    red = Image.new("RGB", (64, 64), (255, 0, 0))

    accepted = accept(encoded(red, "JPEG", icc_profile=profile_with_red_and_green_exchanged(), quality=95))

    stored: Any = Image.open(io.BytesIO(accepted.content)).getpixel((30, 30))
    assert stored[1] > 200 > 60 > stored[0]


def test_damaged_colour_profile_is_no_reason_to_refuse() -> None:
    assert accept(encoded(CELL, "JPEG", icc_profile=b"no profile at all")).width == CELL.width


def test_same_pixels_have_the_same_hash_whatever_the_format() -> None:
    hashes = {accept(encoded(CELL, kind)).pixels_sha256 for kind in ("PNG", "BMP", "TIFF")}

    assert len(hashes) == 1


def test_hashes_are_those_of_the_bytes() -> None:
    received = jpeg_of_cell(5)
    accepted = accept(received)

    assert accepted.received_sha256 == hashlib.sha256(received).hexdigest()
    assert accepted.stored_sha256 == hashlib.sha256(accepted.content).hexdigest()


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\x\\cell.jpg", "cell.jpg"),
        ("a\x00b\n.jpg", "ab.jpg"),
        ("", "unnamed"),
        (None, "unnamed"),
        ("x" * 400, "x" * 255),
    ],
)
def test_file_name_is_only_ever_shown_and_holds_no_path(sent: str | None, shown: str) -> None:
    assert shown_name(sent) == shown


@pytest.mark.parametrize(
    "cut", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\x00\x01", b"\xff\xd8\xff\xda\x00\x02\x01"]
)
def test_broken_jpeg_stream_is_never_cut(cut: bytes) -> None:
    with pytest.raises(NotPlainJpeg):
        without_metadata(cut)


def mean_difference(one: Image.Image, other: Image.Image) -> float:
    pairs = zip(one.tobytes(), other.tobytes(), strict=True)
    return sum(abs(left - right) for left, right in pairs) / len(one.tobytes())
