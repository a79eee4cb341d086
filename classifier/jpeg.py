"""Cuts a JPEG down to what its pixels need, without decoding it (ITU-T T.81, annex B)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
# Frame headers, tables and restart interval; arithmetic conditioning and hierarchical frames are not written today.
KEPT_SEGMENTS = {0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD}
# APP0 gives the pixel density, APP14 the colour transform of Adobe's encoders: without the latter colours turn wrong.
JFIF, ADOBE = 0xE0, 0xEE
# They stand alone: restarts, a second start, and one that no encoder writes.
WITHOUT_LENGTH = {*range(0xD0, SOI + 1), 0x01}
NEXT_MARKER = re.compile(rb"\xff[^\x00\xff]")
# Stuffed zeros, restart markers and fill bytes belong to the entropy-coded data.
END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# Far above what cameras and encoders write. Every scan makes a decoder walk all blocks of the picture again, so a few
# bytes a scan could keep it busy for half an hour; segments and fill bytes are read one by one.
MOST_SCANS, MOST_SEGMENTS, MOST_FILLING = 100, 2000, 64 * 1024


class NotPlainJpeg(ValueError):
    """The stream is not laid out as a baseline or progressive JPEG, so it can't be cut safely."""


class CostlyJpeg(ValueError):
    """The stream is laid out so that decoding it costs far more than its pixels do."""


@dataclass(frozen=True)
class Part:
    """A marker, its segment with the two bytes of length (and, of a scan, its data), and the bytes before it."""

    marker: int
    segment: bytes
    filling: bytes


def parts_of(jpeg: bytes) -> Iterator[Part]:
    """The parts after the start marker, as decoders find them, up to the end marker. Raises NotPlainJpeg."""
    if jpeg[:2] != bytes([0xFF, SOI]):
        raise NotPlainJpeg
    at = 2
    while True:
        found = NEXT_MARKER.search(jpeg, at)
        if found is None:
            raise NotPlainJpeg
        filling, marker, at = jpeg[at : found.start()], found[0][1], found.end()
        if marker == EOI or marker in WITHOUT_LENGTH:
            yield Part(marker, b"", filling)
            if marker == EOI:
                return
            continue
        end = at + int.from_bytes(jpeg[at : at + 2], "big")
        if end < at + 2 or end > len(jpeg):
            raise NotPlainJpeg
        if marker == SOS:
            end = end_of_scan(jpeg, end)
        yield Part(marker, jpeg[at:end], filling)
        at = end


def end_of_scan(jpeg: bytes, at: int) -> int:
    """The place of the first marker after entropy-coded data."""
    found = END_OF_SCAN.search(jpeg, at)
    if found is None:
        raise NotPlainJpeg
    return found.start()


def require_modest(jpeg: bytes) -> None:
    """Raises CostlyJpeg. What is wrong in another way is for the decoder to say."""
    scans = segments = filling = 0
    try:
        for part in parts_of(jpeg):
            segments += 1
            scans += part.marker == SOS
            filling += len(part.filling)
            if scans > MOST_SCANS or segments > MOST_SEGMENTS or filling > MOST_FILLING:
                raise CostlyJpeg
    except NotPlainJpeg:
        return


def without_metadata(jpeg: bytes) -> bytes:
    """Return the stream with frame, tables and scans only: no EXIF, ICC, comment, thumbnail or trailing bytes.

    The entropy-coded data are copied as they are, so the decoded pixels stay the same bit for bit.
    Raises NotPlainJpeg.
    """
    kept = [jpeg[:2]]
    for part in parts_of(jpeg):
        marker, segment = part.marker, part.segment
        # Fill bytes before a marker are allowed; anything else between two segments is not.
        if part.filling.strip(b"\xff"):
            raise NotPlainJpeg
        if marker in {EOI, SOS} or marker in KEPT_SEGMENTS or (marker == ADOBE and segment[2:7] == b"Adobe"):
            kept += [bytes([0xFF, marker]), segment]
        elif marker == JFIF and segment[2:7] == b"JFIF\0" and len(segment) >= 14:
            kept.append(bytes([0xFF, JFIF, 0, 16]) + segment[2:14] + b"\0\0")
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            raise NotPlainJpeg
    return b"".join(kept)
