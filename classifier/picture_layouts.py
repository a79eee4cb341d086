"""What a file says of itself before a decoder reads it: what is refused by name, and what would cost too much.

A decoder's work should follow from a picture's pixels, whose number is limited. Here are the layouts that break this:
thousands of scans, strips or chunks, each of them a few bytes long.
"""

import struct
import zlib
from collections.abc import Iterator

from classifier.jpeg import CostlyJpeg, require_modest

PNG_START = b"\x89PNG\r\n\x1a\n"
# An encoder that writes pieces of 2 KB needs 12,800 for the largest file that is accepted.
MOST_CHUNKS = 20_000
# A picture of 40 megapixels in tiles of 32 x 32 has 39,000; a directory has some dozens of entries.
MOST_STRIPS, MOST_ENTRIES = 50_000, 4096
STRIP_TAGS = {273, 279, 324, 325}
# The beginnings of pictures that are not accepted, with their names: no decoder is asked.
REFUSED_STARTS = {
    b"GIF8": "GIF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"8BPS": "Photoshop",
    b"gimp xcf": "GIMP",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\1\0": "Icon",
    b"SIMPLE  =": "FITS",
}


class CostlyLayout(ValueError):
    """Decoding the file would cost far more than its pixels do."""


class WrongChecksum(ValueError):
    """A part of the file that holds pixels is not what was written."""


def name_of_refused(content: bytes) -> str:
    """What kind of picture it is, of those that are known by their beginning and not accepted; else nothing."""
    for start, name in REFUSED_STARTS.items():
        if content.startswith(start):
            return name
    if content[128:132] == b"DICM":
        return "DICOM"
    if content[4:12] in {b"ftypavif", b"ftypavis"}:
        return "AVIF"
    return "SVG" if b"<svg" in content[:2000].lower() else ""


def require_modest_layout(content: bytes) -> None:
    """Raises CostlyLayout, WrongChecksum. Any other damage is for the decoder to find."""
    if content.startswith(b"\xff\xd8"):
        try:
            require_modest(content)
        except CostlyJpeg as error:
            raise CostlyLayout from error
    elif content.startswith(PNG_START):
        require_modest_png(content)
    elif content[:2] in {b"II", b"MM"}:
        require_modest_tiff(content)


def chunks_of(png: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """(kind, body, checksum) of each chunk that is there, up to the last one."""
    at = len(PNG_START)
    while at + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, at)
        if at + 12 + length > len(png):
            return
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        yield kind, body, struct.unpack_from(">I", png, at + 8 + length)[0]
        if kind == b"IEND":
            return
        at += 12 + length


def require_modest_png(png: bytes) -> None:
    for number, (kind, body, checksum) in enumerate(chunks_of(png)):
        if number >= MOST_CHUNKS:
            raise CostlyLayout
        # The decoder compares those of the other chunks.
        if kind == b"IDAT" and zlib.crc32(body, zlib.crc32(kind)) != checksum:
            raise WrongChecksum


def require_modest_tiff(tiff: bytes) -> None:
    """Looks at the first directory; a second one means several pictures, which are refused anyway."""
    order = "<" if tiff.startswith(b"II") else ">"
    big = tiff[2:4] in {b"+\0", b"\0+"}
    try:
        if big:
            (at,) = struct.unpack_from(f"{order}Q", tiff, 8)
            (entries,) = struct.unpack_from(f"{order}Q", tiff, at)
        else:
            (at,) = struct.unpack_from(f"{order}I", tiff, 4)
            (entries,) = struct.unpack_from(f"{order}H", tiff, at)
        at += 8 if big else 2
        if entries > MOST_ENTRIES:
            raise CostlyLayout
        for number in range(entries):
            tag, _, count = struct.unpack_from(
                f"{order}HHQ" if big else f"{order}HHI", tiff, at + number * (20 if big else 12)
            )
            if tag in STRIP_TAGS and count > MOST_STRIPS:
                raise CostlyLayout
    except (struct.error, OverflowError):
        return
