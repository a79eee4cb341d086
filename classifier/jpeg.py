"""Cuts a JPEG down to what its pixels need, without decoding it (ITU-T T.81, annex B)."""

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
# Frame headers, tables and restart interval; arithmetic conditioning and hierarchical frames are not written today.
KEPT_SEGMENTS = {0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD}
# APP0 gives the pixel density, APP14 the colour transform of Adobe's encoders: without the latter colours turn wrong.
JFIF, ADOBE = 0xE0, 0xEE


class NotPlainJpeg(ValueError):
    """The stream is not laid out as a baseline or progressive JPEG, so it can't be cut safely."""


def without_metadata(jpeg: bytes) -> bytes:
    """Return the stream with frame, tables and scans only: no EXIF, ICC, comment, thumbnail or trailing bytes.

    The entropy-coded data are copied as they are, so the decoded pixels stay the same bit for bit.
    Raises NotPlainJpeg.
    """
    if jpeg[:2] != bytes([0xFF, SOI]):
        raise NotPlainJpeg
    kept = [jpeg[:2]]
    at = 2
    while True:
        marker, at = next_marker(jpeg, at)
        if marker == EOI:
            kept.append(bytes([0xFF, EOI]))
            return b"".join(kept)
        end = at + int.from_bytes(jpeg[at : at + 2], "big")
        if end < at + 2 or end > len(jpeg):
            raise NotPlainJpeg
        segment = jpeg[at:end]
        if marker == SOS:
            end = end_of_scan(jpeg, end)
            kept.append(bytes([0xFF, SOS]) + jpeg[at:end])
        elif marker in KEPT_SEGMENTS or (marker == ADOBE and segment[2:7] == b"Adobe"):
            kept.append(bytes([0xFF, marker]) + segment)
        elif marker == JFIF and segment[2:7] == b"JFIF\0" and len(segment) >= 14:
            kept.append(bytes([0xFF, JFIF, 0, 16]) + segment[2:14] + b"\0\0")
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            raise NotPlainJpeg
        at = end


def next_marker(jpeg: bytes, at: int) -> tuple[int, int]:
    """The marker at `at` (fill bytes skipped) and the place after it."""
    if jpeg[at : at + 1] != b"\xff":
        raise NotPlainJpeg
    while jpeg[at : at + 1] == b"\xff":
        at += 1
    if at >= len(jpeg):
        raise NotPlainJpeg
    return jpeg[at], at + 1


def end_of_scan(jpeg: bytes, at: int) -> int:
    """The place of the first marker after entropy-coded data; stuffed zeros and restart markers belong to the data."""
    while True:
        at = jpeg.find(b"\xff", at)
        if at < 0 or at + 1 >= len(jpeg):
            raise NotPlainJpeg
        following = jpeg[at + 1]
        if following != 0 and not 0xD0 <= following <= 0xD7:
            return at
        at += 2
