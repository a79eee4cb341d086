"""Hostile pictures and names, built here so that no binary lies in the repository."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageCms

from tests.pictures import drawn_cell, encoded

PAYLOAD = b"<script>alert('PLANTED-BEHIND')</script>"
MEGABYTE = 1024**2


@dataclass(frozen=True)
class Hostile:
    """How a file is made, and the codes with which it may be refused; without any it is accepted."""

    make: Callable[[], bytes]
    codes: frozenset[str]


@cache
def cell() -> Image.Image:
    return drawn_cell(7)


def jpeg(**options: object) -> bytes:
    return encoded(cell(), "JPEG", **{"quality": 90, **options})


# --- JPEG ------------------------------------------------------------------------------------------------------
def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def with_segments(*segments: bytes) -> bytes:
    """The cell with these segments right behind its first marker."""
    whole = jpeg()
    return whole[:2] + b"".join(segments) + whole[2:]


def jpeg_and_zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("evil.html", PAYLOAD)
    return jpeg() + packed.getvalue()


def jpeg_and_javascript() -> bytes:
    """A JPEG that is a script as well: its first segment's length and text open a comment that the tail closes."""
    body = (b"=1/*" + bytes(0x2F2A)).ljust(0x2F2A)[: 0x2F2A - 2]
    return with_segments(segment(0xE0, b"JFIF\0" + body[5:])) + b"*/=alert('PLANTED-BEHIND')//"


def jpeg_with_size(width: int, height: int) -> bytes:
    whole = bytearray(jpeg())
    at = whole.index(b"\xff\xc0")
    whole[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(whole)


def jpeg_with_frame(marker: int) -> bytes:
    return jpeg().replace(b"\xff\xc0", bytes([0xFF, marker]), 1)


def jpeg_with_precision(bits: int) -> bytes:
    whole = bytearray(jpeg())
    whole[whole.index(b"\xff\xc0") + 4] = bits
    return bytes(whole)


def scan_bomb(scans: int, side: int = 4096) -> bytes:
    """A grey progressive JPEG of side x side whose every scan walks all blocks and says nothing in a few bytes."""
    blocks = (side // 8) ** 2
    frame = segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0]))
    table = segment(0xDB, bytes([0]) + bytes([1]) * 64)
    # One DC symbol (no difference) and one AC symbol (an end-of-band run of 2^14 blocks and more), one bit each.
    dc = segment(0xC4, bytes([0x00, 1, *[0] * 15, 0x00]))
    ac = segment(0xC4, bytes([0x10, 1, *[0] * 15, 0xE0]))
    first = segment(0xDA, bytes([1, 1, 0x00, 0, 0, 0])) + bytes(blocks // 8)
    bits = "".join("0" + "1" * 14 for _ in range(-(-blocks // 32767)))
    padded = bits.ljust(-(-len(bits) // 8) * 8, "1")
    runs = int(padded, 2).to_bytes(len(padded) // 8, "big").replace(b"\xff", b"\xff\0")
    again = segment(0xDA, bytes([1, 1, 0x00, 1, 63, 0])) + runs
    return b"\xff\xd8" + table + frame + dc + ac + first + again * scans + b"\xff\xd9"


def icc_in_jpeg(profile: bytes) -> bytes:
    parts = [profile[at : at + 65_000] for at in range(0, len(profile), 65_000)]
    return with_segments(
        *(
            segment(0xE2, b"ICC_PROFILE\0" + bytes([place, len(parts)]) + part)
            for place, part in enumerate(parts, start=1)
        )
    )


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def profile_with_tag_count(count: int) -> bytes:
    profile = bytearray(srgb_profile())
    profile[128:132] = struct.pack(">I", count)
    return bytes(profile)


def profile_with_a_payload() -> bytes:
    """A usable sRGB profile with something behind its tables."""
    profile = srgb_profile() + PAYLOAD
    return struct.pack(">I", len(profile)) + profile[4:]


def profile_with_huge_description() -> bytes:
    """A profile whose description claims two gigabytes of text."""
    profile = bytearray(srgb_profile())
    at = profile.index(b"desc", 128 + 4)
    offset = struct.unpack_from(">I", profile, at + 4)[0]
    profile[offset + 8 : offset + 12] = struct.pack(">I", 0x7FFFFFFF)
    return bytes(profile)


def exif(entries: Sequence[tuple[int, int, int, bytes]], tail: bytes = b"", after: int = 0) -> bytes:
    """An EXIF block of (tag, type, count, four bytes) entries."""
    body = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + struct.pack("<I", after) + tail


def exif_in_loops() -> bytes:
    here = struct.pack("<I", 8)
    return exif([(tag, 4, 1, here) for tag in (0x8769, 0x8825, 0xA005)], after=8)


def exif_orientation(value: int, kind: int = 3, count: int = 1) -> bytes:
    return exif([(0x0112, kind, count, struct.pack("<HH", value & 0xFFFF, 0))])


def exif_that_reads_itself(entries: int) -> bytes:
    """Every entry claims the whole of the block as its value."""
    size = 12 * entries
    return exif([(1000 + number, 7, size, struct.pack("<I", 8)) for number in range(entries)])


def multi_picture_loop() -> bytes:
    body = [(0xB001, 4, 1, struct.pack("<I", 0x7FFFFFFF)), (0xB002, 7, 16, struct.pack("<I", 8))]
    return segment(0xE2, b"MPF\0" + exif(body, after=8)[6:])


def giant(kind: str, **options: object) -> bytes:
    """As many pixels as are accepted, half transparent: the dearest of all honest pictures."""
    return encoded(Image.new("RGBA", (6320, 6320), (200, 20, 20, 100)), kind, **options)


def with_exif(block: bytes) -> bytes:
    return with_segments(segment(0xE1, block))


# --- PNG -------------------------------------------------------------------------------------------------------
PNG_START = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_head(width: int, height: int, depth: int = 8, colour: int = 2, interlaced: int = 0) -> bytes:
    return PNG_START + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


def png(*extra: bytes, rows: bytes | None = None, after: bytes = b"") -> bytes:
    """64 x 64 pixels, with chunks before the pixels and after them."""
    pixels = zlib.compress(bytes(64 * (1 + 3 * 64)), 9) if rows is None else rows
    return png_head(64, 64) + b"".join(extra) + chunk(b"IDAT", pixels) + after + chunk(b"IEND")


@cache
def bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(MEGABYTE)) for _ in range(megabytes)) + packer.flush()


def png_with_wrong_checksum() -> bytes:
    whole = bytearray(png())
    whole[-13] ^= 0xFF
    return bytes(whole)


def animated_png(frames: int) -> bytes:
    control = struct.pack(">IIIIIHHBB", 0, 64, 64, 0, 0, 1, 1, 0, 0)
    return png(chunk(b"acTL", struct.pack(">II", frames, 0)), chunk(b"fcTL", control))


def interlaced_png_bomb(side: int) -> bytes:
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(side)) for _ in range(side + side // 2)) + packer.flush()
    return png_head(side, side, 8, 0, 1) + chunk(b"IDAT", body) + chunk(b"IEND")


# --- TIFF and BMP ----------------------------------------------------------------------------------------------
def tiff(entries: Sequence[tuple[int, int, int, int]], data: bytes = b"", following: int = 0) -> bytes:
    """A little-endian TIFF whose directory stands at 8 and whose data come right behind it."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + struct.pack("<I", following) + data


def tiff_start(entries: int) -> int:
    return 8 + 2 + 12 * entries + 4


def grey_tiff(*more: tuple[int, int, int, int], following: int = 0, compression: int = 1, data: bytes = b"") -> bytes:
    """64 x 64 grey pixels in one strip, with further entries."""
    pixels = data or bytes(64 * 64)
    count = 9 + len(more)
    usual = [
        (256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1),
        (273, 4, 1, tiff_start(count)), (277, 3, 1, 1), (278, 4, 1, 64), (279, 4, 1, len(pixels)),
    ]  # fmt: skip
    return tiff([*usual, *more], pixels, following)


def tiff_of_strips(strips: int) -> bytes:
    """A directory that names millions of strips for 64 rows."""
    entries = [
        (256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, strips, tiff_start(9)), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, strips, tiff_start(9)),
    ]  # fmt: skip
    return tiff(entries, struct.pack("<I", 8) * strips)


def tiff_of_greedy_tags(tags: int, size: int) -> bytes:
    """Every one of many tags claims the same megabytes as its value: together far more than the file."""
    greedy = [(40_000 + number, 7, size, 8) for number in range(tags)]
    return grey_tiff(*greedy) + bytes(size)


def big_tiff_of_entries(entries: int) -> bytes:
    body = b"".join(struct.pack("<HHQQ", number % 65_536, 3, 1, 1) for number in range(entries))
    return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, entries) + body + bytes(8)


def jpeg_in_tiff() -> bytes:
    """A strip of 64 x 64 pixels that holds a JPEG of 65,000 x 65,000."""
    return grey_tiff(compression=7, data=jpeg_with_size(65_000, 65_000))


def scans_in_tiff() -> bytes:
    return grey_tiff(compression=7, data=scan_bomb(2000, 64))


def tiff_with_script_as_profile() -> bytes:
    pixels = bytes(64 * 64)
    return grey_tiff((34_675, 7, len(PAYLOAD), tiff_start(10) + len(pixels)), data=pixels) + PAYLOAD


def huge_tiff() -> bytes:
    return tiff([(256, 4, 1, 2**31), (257, 4, 1, 2**31), (258, 3, 1, 8), (262, 3, 1, 1)])


def tiff_of_60_000_samples() -> bytes:
    one, many = (struct.pack("<HHII", 277, 3, 1, count) for count in (1, 60_000))
    return grey_tiff((339, 3, 1, 1)).replace(one, many)


def bmp(width: int, height: int, bits: int = 24, compression: int = 0, size: int = 12_288, colours: int = 0) -> bytes:
    head = b"BM" + struct.pack("<IHHI", 54 + size, 0, 0, 54)
    about = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, size, 0, 0, colours, 0)
    return head + about + bytes(size)


# --- WebP and HEIC ---------------------------------------------------------------------------------------------
def webp_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_canvas(width: int, height: int, flags: int) -> bytes:
    return webp_chunk(
        b"VP8X", bytes([flags, 0, 0, 0]) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    )


def one_frame_webp() -> bytes:
    return encoded(cell().resize((64, 64)), "WEBP", lossless=True)[12:]


def animated_webp(frames: int, side: int) -> bytes:
    part = bytes(6) + struct.pack("<I", 63)[:3] * 2 + bytes(4) + one_frame_webp()
    return webp(webp_canvas(side, side, 2), webp_chunk(b"ANIM", bytes(6)), webp_chunk(b"ANMF", part) * frames)


def webp_with_script_as_profile() -> bytes:
    return webp(webp_canvas(64, 64, 32), webp_chunk(b"ICCP", PAYLOAD), one_frame_webp())


def webp_with_exif(block: bytes) -> bytes:
    return webp(webp_canvas(64, 64, 8), one_frame_webp(), webp_chunk(b"EXIF", block))


def heic(side: int = 128, **options: object) -> bytes:
    return encoded(cell().resize((side, side)), "HEIF", quality=40, **options)


def heic_that_claims(side: int, claimed: int) -> bytes:
    """A HEIC of side x side pixels that says it has claimed x claimed."""
    return heic(side).replace(struct.pack(">II", side, side), struct.pack(">II", claimed, claimed))


def heic_grid(tiles: int) -> bytes:
    """A HEIC whose picture is a grid of tiles."""
    return encoded(cell().resize((64 * tiles, 64 * tiles)), "HEIF", quality=20, tile_size=64)


def heic_of_boxes(count: int) -> bytes:
    whole = heic()
    return whole[:24] + struct.pack(">I4s", 8, b"free") * count + whole[24:]


# --- Not pictures at all ---------------------------------------------------------------------------------------
HTML = b"<!doctype html><html><body>" + PAYLOAD + b"</body></html>"
XMP = b"http://ns.adobe.com/xap/1.0/\0"
TEXT_CHUNK = chunk(b"tEXt", b"Title\0" + HTML)
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(/etc/passwd) (r) file\n" + b"x" * MEGABYTE
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
BILLION_LAUGHS = b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><svg>&b;</svg>'
NOT, FORMAT, DAMAGED = "not_an_image", "unsupported_format", "damaged_image"
SEVERAL, LARGE, SMALL, COSTLY = "several_pictures", "too_many_pixels", "too_few_pixels", "too_costly"


def made(make: Callable[[], bytes] | bytes, *codes: str) -> Hostile:
    return Hostile((lambda: make) if isinstance(make, bytes) else make, frozenset(codes))


CORPUS: dict[str, Hostile] = {
    # Two things at once: what is not the picture must be gone.
    "JPEG and ZIP": made(jpeg_and_zip),
    "JPEG and HTML behind it": made(lambda: jpeg() + HTML),
    "JPEG and HTML in a comment": made(lambda: with_segments(segment(0xFE, HTML))),
    "JPEG and JavaScript": made(jpeg_and_javascript),
    "JPEG and PHP in EXIF": made(lambda: with_segments(segment(0xE1, exif_orientation(1) + PAYLOAD))),
    "JPEG and XMP with a script": made(lambda: with_segments(segment(0xE1, XMP + PAYLOAD))),
    "PNG and HTML behind it": made(lambda: png() + HTML),
    "PNG and HTML in its text": made(
        lambda: png(chunk(b"tEXt", b"Title\0" + HTML), after=chunk(b"tEXt", b"x\0" + HTML))
    ),
    "PNG and an unknown chunk": made(lambda: png(chunk(b"evIl", PAYLOAD))),
    "BMP and HTML behind it": made(lambda: bmp(64, 64) + HTML),
    "WebP and HTML behind it": made(lambda: webp(one_frame_webp()) + HTML),
    "TIFF and HTML behind it": made(lambda: grey_tiff() + HTML),
    # In disguise.
    "HTML": made(HTML, NOT),
    "SVG": made(SVG, FORMAT),
    "SVG behind spaces": made(b" " * 1500 + SVG, FORMAT),
    "XML with entities": made(BILLION_LAUGHS, FORMAT),
    "PDF": made(b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj", NOT),
    "PostScript": made(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(/etc/passwd) (r) file\n" + b"x" * MEGABYTE, FORMAT
    ),
    "GIF": made(lambda: encoded(cell(), "GIF"), FORMAT),
    "GIF and JavaScript": made(b"GIF89a/*" + bytes(300) + b"*/=1;alert(1)", FORMAT),
    "Windows program": made(b"MZ" + bytes(4096), NOT),
    "shell script": made(b"#!/bin/sh\nrm -rf /\n", NOT),
    "ZIP": made(lambda: jpeg_and_zip()[len(jpeg()) :], NOT),
    "JPEG start and HTML": made(b"\xff\xd8\xff\xe0" + HTML, DAMAGED, NOT),
    "PNG start and HTML": made(PNG_START + HTML, DAMAGED, NOT),
    "only zeros": made(bytes(MEGABYTE), NOT),
    "only 0xFF": made(b"\xff" * MEGABYTE, NOT),
    # JPEG.
    "JPEG of 65535 x 65535": made(lambda: jpeg_with_size(65_535, 65_535), LARGE),
    "JPEG of 6000 x 6000 from 224 x 224": made(lambda: jpeg_with_size(6000, 6000)),
    "JPEG of no height": made(lambda: jpeg_with_size(224, 0), DAMAGED, SMALL, NOT),
    "JPEG of 40,000,000 pixels in one line": made(lambda: jpeg_with_size(65_535, 1), SMALL),
    "JPEG, arithmetic coding": made(lambda: jpeg_with_frame(0xC9)),
    "JPEG, lossless": made(lambda: jpeg_with_frame(0xC3), DAMAGED, NOT),
    "JPEG, hierarchical": made(lambda: jpeg_with_frame(0xC5), DAMAGED, NOT),
    "JPEG of 12 bits": made(lambda: jpeg_with_precision(12), DAMAGED, NOT),
    "JPEG of 9000 scans": made(lambda: scan_bomb(9000), COSTLY),
    "JPEG of 300,000 comments": made(lambda: with_segments(segment(0xFE, b"") * 300_000), COSTLY),
    "JPEG of 8 MB of fill bytes": made(lambda: with_segments(b"\xff" * 8 * MEGABYTE), COSTLY),
    "JPEG of 8 MB of nothing between segments": made(lambda: with_segments(bytes(8 * MEGABYTE)), COSTLY),
    "JPEG, CMYK": made(lambda: encoded(cell().convert("CMYK"), "JPEG")),
    "JPEG, profile of a megabyte of nothing": made(lambda: icc_in_jpeg(bytes(MEGABYTE))),
    "JPEG, profile of 4 billion tags": made(lambda: icc_in_jpeg(profile_with_tag_count(0xFFFFFFFF))),
    "JPEG, profile with a description of 2 GB": made(lambda: icc_in_jpeg(profile_with_huge_description())),
    "JPEG, profile of 16 MB": made(lambda: icc_in_jpeg(srgb_profile() + bytes(255 * 65_000 - len(srgb_profile())))),
    "JPEG, profile with a script": made(lambda: icc_in_jpeg(profile_with_a_payload())),
    "JPEG, profile that is a script": made(lambda: icc_in_jpeg(PAYLOAD)),
    "JPEG, EXIF in loops": made(lambda: with_segments(segment(0xE1, exif_in_loops()))),
    "JPEG, EXIF that reads itself": made(lambda: with_segments(segment(0xE1, exif_that_reads_itself(5000)))),
    "JPEG, orientation 9": made(lambda: with_segments(segment(0xE1, exif_orientation(9)))),
    "JPEG, orientation 0": made(lambda: with_segments(segment(0xE1, exif_orientation(0)))),
    "JPEG, orientation as text": made(lambda: with_segments(segment(0xE1, exif_orientation(6, 2)))),
    "JPEG, orientation of 4 billion values": made(
        lambda: with_segments(segment(0xE1, exif_orientation(6, 3, 0xFFFFFFFF)))
    ),
    "JPEG, EXIF cut off": made(lambda: with_segments(segment(0xE1, exif_in_loops()[:20]))),
    "JPEG, EXIF of rubbish": made(lambda: with_segments(segment(0xE1, b"Exif\0\0" + PAYLOAD))),
    "JPEG, many pictures that are not there": made(lambda: with_segments(multi_picture_loop())),
    # PNG.
    "PNG of 50,000 x 50,000": made(lambda: png_head(50_000, 50_000) + chunk(b"IDAT", bomb(1)) + chunk(b"IEND"), LARGE),
    "PNG of 2^31 x 2^31": made(lambda: png_head(2**31 - 1, 2**31 - 1) + chunk(b"IEND"), LARGE),
    "PNG of 64 x 64 from 256 MB": made(lambda: png(rows=bomb(256))),
    "PNG of 6000 x 6000, interlaced": made(lambda: interlaced_png_bomb(6000)),
    "PNG of 40 megapixels, transparent": made(lambda: giant("PNG", compress_level=1)),
    "PNG, zTXt of 256 MB": made(lambda: png(chunk(b"zTXt", b"x\0\0" + bomb(256))), DAMAGED),
    "PNG, iTXt of 256 MB": made(lambda: png(chunk(b"iTXt", b"x\0\1\0\0\0" + bomb(256))), DAMAGED),
    "PNG, profile of 256 MB": made(lambda: png(chunk(b"iCCP", b"x\0\0" + bomb(256))), DAMAGED),
    "PNG, profile with a script": made(lambda: png(chunk(b"iCCP", b"x\0\0" + zlib.compress(profile_with_a_payload())))),
    "PNG, profile that is a script": made(lambda: png(chunk(b"iCCP", b"x\0\0" + zlib.compress(PAYLOAD)))),
    "PNG, 500,000 chunks before the pixels": made(lambda: png(chunk(b"evIl") * 500_000), COSTLY),
    "PNG, 60,000 chunks after the pixels": made(lambda: png(after=chunk(b"evIl") * 60_000), COSTLY),
    "PNG, 60,000 empty pieces of pixels": made(lambda: png(chunk(b"IDAT") * 60_000), COSTLY),
    "PNG with a wrong checksum": made(
        lambda: png().replace(chunk(b"IDAT", zlib.compress(bytes(64 * 193), 9))[-4:], b"\0\0\0\0"), DAMAGED
    ),
    "PNG with a chunk of 4 GB": made(lambda: png_head(64, 64) + b"\xff\xff\xff\xffIDAT" + bytes(500), DAMAGED),
    "PNG without pixels": made(lambda: png_head(64, 64) + chunk(b"IEND"), DAMAGED),
    "PNG of no size": made(lambda: png_head(0, 0) + chunk(b"IEND"), NOT),
    "PNG of an unknown kind": made(lambda: png_head(64, 64, 7, 5) + chunk(b"IEND"), DAMAGED, NOT),
    "PNG, animated, 4 billion frames": made(lambda: animated_png(0xFFFFFFFF)),
    "PNG, animated, one frame that is not there": made(lambda: animated_png(2), SEVERAL, DAMAGED),
    "PNG, EXIF in loops": made(lambda: png(chunk(b"eXIf", exif_in_loops()[6:]))),
    "PNG, EXIF that reads itself": made(lambda: png(chunk(b"eXIf", exif_that_reads_itself(60_000)[6:]))),
    # TIFF.
    "TIFF whose next page is itself": made(lambda: grey_tiff(following=8)),
    "TIFF whose next page is nowhere": made(lambda: grey_tiff(following=0xFFFFFFF0), SEVERAL, DAMAGED),
    "TIFF with EXIF in itself": made(lambda: grey_tiff((34_665, 4, 1, 8), (34_853, 4, 1, 8), (40_965, 4, 1, 8))),
    "TIFF, profile that is a script": made(
        lambda: grey_tiff((34_675, 7, len(PAYLOAD), tiff_start(10) + 64 * 64), data=bytes(64 * 64)) + PAYLOAD
    ),
    "TIFF of 3,000,000 strips": made(lambda: tiff_of_strips(3_000_000), COSTLY),
    "TIFF of 4,000 greedy tags": made(lambda: tiff_of_greedy_tags(4000, 4 * MEGABYTE)),
    "TIFF of 60,000 small tags": made(lambda: grey_tiff(*((100 + at, 7, 4, 0) for at in range(400, 60_000))), COSTLY),
    "BigTIFF of 60,000 entries": made(lambda: big_tiff_of_entries(60_000), COSTLY),
    "TIFF of 2^31 x 2^31": made(
        lambda: tiff([(256, 4, 1, 2**31), (257, 4, 1, 2**31), (258, 3, 1, 8), (262, 3, 1, 1)]), LARGE, DAMAGED, NOT
    ),
    "TIFF with a JPEG of 65,000 x 65,000": made(jpeg_in_tiff, DAMAGED),
    "TIFF with a JPEG of 2000 scans": made(scans_in_tiff, DAMAGED),
    "TIFF, packed, from 256 MB": made(lambda: grey_tiff(compression=8, data=bomb(256))),
    "TIFF with 60,000 samples a pixel": made(
        lambda: grey_tiff((339, 3, 1, 1)).replace(
            struct.pack("<HHII", 277, 3, 1, 1), struct.pack("<HHII", 277, 3, 1, 60_000)
        ),
        DAMAGED,
        NOT,
    ),
    # BMP.
    "BMP of negative height": made(lambda: bmp(64, -64)),
    "BMP of the most negative height": made(lambda: bmp(64, -(2**31)), LARGE, DAMAGED, NOT),
    "BMP of negative width": made(lambda: bmp(-64, 64), LARGE),
    "BMP of 2^31 x 2^31": made(lambda: bmp(2**31 - 1, 2**31 - 1), LARGE),
    "BMP of 4 billion colours": made(lambda: bmp(64, 64, 8, colours=0xFFFFFFF0), DAMAGED, NOT),
    "BMP, run-length": made(lambda: bmp(64, 64, 8, 1), FORMAT, DAMAGED),
    "BMP with a JPEG inside": made(lambda: bmp(64, 64, 24, 4), DAMAGED, NOT),
    # WebP.
    "WebP, animated": made(lambda: animated_webp(3, 64), SEVERAL),
    "WebP, 20,000 frames": made(lambda: animated_webp(2000, 64), SEVERAL),
    "WebP of 16,383 x 16,383": made(lambda: animated_webp(1, 16_383), LARGE, DAMAGED),
    "WebP of 6000 x 6000 from 64 x 64": made(lambda: animated_webp(1, 6000)),
    "WebP of 40 megapixels, transparent": made(lambda: giant("WEBP", quality=10, method=0)),
    "WebP, EXIF in loops": made(lambda: webp_with_exif(exif_in_loops())),
    "WebP, EXIF that reads itself": made(lambda: webp_with_exif(exif_that_reads_itself(60_000))),
    "WebP that is cut off": made(lambda: webp(one_frame_webp())[:-200], DAMAGED, NOT),
    # HEIC.
    "WebP, profile that is a script": made(
        lambda: webp(webp_canvas(64, 64, 32), webp_chunk(b"ICCP", PAYLOAD), one_frame_webp())
    ),
    "HEIC, cut off": made(lambda: heic()[:-200], DAMAGED, NOT),
    "HEIC that claims 60,000 x 60,000": made(lambda: heic_that_claims(128, 60_000), LARGE, DAMAGED),
    "HEIC of 512 x 512 that claims 64 x 64": made(lambda: heic_that_claims(512, 64), DAMAGED),
    "HEIC of 64 tiles": made(lambda: heic_grid(8)),
    "HEIC of 200,000 empty boxes": made(lambda: heic_of_boxes(200_000), DAMAGED, NOT),
    "HEIC, EXIF in loops": made(lambda: heic(exif=exif_in_loops())),
    "HEIC, EXIF that reads itself": made(lambda: heic(exif=exif_that_reads_itself(60_000))),
    "AVIF": made(lambda: heic().replace(b"ftypheic", b"ftypavif"), DAMAGED, NOT, FORMAT),
}


@cache
def content_of(name: str) -> bytes:
    return CORPUS[name].make()


# What a sender may call a file.
NAMES = {
    "leads out": "../../../../etc/passwd",
    "leads out on Windows": "..\\..\\windows\\system32\\cell.jpg",
    "absolute": "/etc/shadow",
    "NUL": "cell.jpg\0.html",
    "new line": "cell\r\nSet-Cookie: evil=1.jpg",
    "escape sequences": "\x1b[2J\x1b]0;evil\x07cell.jpg",
    "turned round": "cell\u202egpj.exe",
    "four kilobytes": "x" * 4096 + ".jpg",
    "device": "CON",
    "device with a path": "\\\\.\\COM1",
    "formula": '=HYPERLINK("https://evil.example","cell")',
    "formula with @": "@SUM(1+1)*cmd|' /C calc'!A0",
    "script": "<script>alert(1)</script>.jpg",
    "quote": "\"><img src=x onerror=alert(1)>.jpg",
    "only dots": "..",
    "empty": "",
    "half a character": "cell\ud800.jpg",
    "stacked marks": "c" + "\u0336" * 500 + ".jpg",
    "template": "{{ settings.SECRET_KEY }}{% debug %}.jpg",
    "percent": "%s%n%2e%2e%2fcell.jpg",
}  # fmt: skip
