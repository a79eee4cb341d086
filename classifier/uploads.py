"""From the bytes that somebody sent to a picture that may be kept, or a sentence that says why not.

A file is judged by what it decodes to, never by its name. What is kept carries no metadata: a JPEG that needs no
turning keeps its pixels bit for bit, everything else becomes an 8-bit RGB PNG, which every browser shows.
"""

import hashlib
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, TemporaryFileUploadHandler
from django.template.defaultfilters import filesizeformat
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError
from pillow_heif import register_heif_opener

from accounts.roles import Verb
from classifier.errors import TooManyUploads, Unavailable, UnsupportedFormat, UploadRejected, UploadTooLarge
from classifier.jpeg import NotPlainJpeg, without_metadata
from classifier.picture_layouts import CostlyLayout, WrongChecksum, name_of_refused, require_modest_layout

register_heif_opener()
ACCEPTED_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "HEIF")
FORMATS_IN_WORDS = "JPEG, PNG, TIFF, BMP, WebP or HEIC"
# The field of an archive, and the names of the addresses that take one.
ARCHIVE = "archive"
ARCHIVE_ADDRESSES = frozenset({"batches", "api-batches"})
# So much of a form's first picture is held in memory before it goes to a file; a form may bring 200 of them.
MEMORY_BYTES = 256 * 1024
TILE_WIDTH, TILE_LENGTH = 322, 323
SRGB = ImageCms.createProfile("sRGB")
# Decoding needs memory in proportion to the pixels: few at a time, whatever the number of web threads.
decoding_slots = threading.BoundedSemaphore(2)
SLOT_SECONDS = 20
# What arrives is read into memory before it is decoded: so many files in each process, and no more.
upload_places = threading.BoundedSemaphore(settings.UPLOADS_AT_ONCE)


class CappedUploadHandler(TemporaryFileUploadHandler):
    """Streams an upload to a temporary file, and stops writing (but not counting) beyond the size limit.

    Forms are read before a view is asked, so nothing is written for a stranger or for a field that no form has. Only
    where batches are handed in, and by those who may, a file `archive` is taken that is larger than a picture.
    A small picture, as most are, stays in memory; an archive is a file from the start, which the storage can move.
    """

    began = False

    def new_file(self, field_name: str, file_name: str, *about: Any, **more: Any) -> None:
        if field_name == ARCHIVE:
            super().new_file(field_name, file_name, *about, **more)
            return
        FileUploadHandler.new_file(self, field_name, file_name, *about, **more)
        # Closed with its request, as Django does it with every file that came.
        spooled = SpooledTemporaryFile(1 if self.began else MEMORY_BYTES)  # noqa: SIM115
        self.began = True
        about_file = (self.content_type, 0, self.charset, self.content_type_extra)
        self.file = UploadedFile(spooled, file_name, *about_file)  # type: ignore[assignment]

    def upload_interrupted(self) -> None:
        # The file of a picture has no name, and goes when it is closed.
        if self.field_name == ARCHIVE:
            super().upload_interrupted()
        elif hasattr(self, "file"):
            self.file.close()

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        if start <= self.limit:
            super().receive_data_chunk(raw_data, start)

    @property
    def limit(self) -> int:
        """How many bytes of the file that is being sent may be written; -1 for none."""
        user = getattr(self.request, "user", None)
        if user is None or not user.is_authenticated:
            return -1
        if self.field_name == "file":
            return int(settings.MAX_IMAGE_BYTES)
        address = getattr(self.request, "resolver_match", None)
        if self.field_name == ARCHIVE and address and address.url_name in ARCHIVE_ADDRESSES:
            return int(settings.MAX_ARCHIVE_BYTES) if user.may(Verb.UPLOAD) else -1
        return -1

    def file_complete(self, file_size: int) -> UploadedFile:
        self.file.seek(0)
        self.file.size = file_size
        return self.file


@dataclass(frozen=True)
class AcceptedUpload:
    """A picture that may be kept: its stored form and what was learned while checking it."""

    content: bytes
    extension: str
    width: int
    height: int
    received_sha256: str
    stored_sha256: str
    pixels_sha256: str


def accept_upload(upload: UploadedFile) -> AcceptedUpload:
    """Check an uploaded file and give it the form in which it is stored.

    An upload is judged once, however often it is asked for: what comes under an Idempotency-Key is judged before its
    transaction begins.

    Raises UploadRejected with one of: empty_file, file_too_large (413), not_an_image, unsupported_format (415),
    several_pictures, too_few_pixels, too_many_pixels, damaged_image. Raises TooManyUploads (too_many_uploads, 429) and
    Unavailable (busy) when too many pictures are being looked at, or decoded, already.
    """
    known: AcceptedUpload | None = getattr(upload, "accepted", None)
    if known is None:
        known = judged(upload)
        upload.accepted = known  # type: ignore[attr-defined]
    return known


def judged(upload: UploadedFile) -> AcceptedUpload:
    with upload_place():
        received = read_capped(upload)
        with decoding_slot():
            return taken(received)


def taken(received: bytes) -> AcceptedUpload:
    picture = decode(received)
    stored, extension = as_stored(picture, received)
    return AcceptedUpload(
        content=stored,
        extension=extension,
        width=picture.upright.width,
        height=picture.upright.height,
        received_sha256=hashlib.sha256(received).hexdigest(),
        stored_sha256=hashlib.sha256(stored).hexdigest(),
        pixels_sha256=hash_pixels(picture.upright),
    )


@contextmanager
def upload_place() -> Iterator[None]:
    """A place among the files that are looked at now. Raises TooManyUploads at once where there is none."""
    if not upload_places.acquire(blocking=False):
        message = "Too many pictures arrive at the same moment. Send this one again when Retry-After says so."
        raise TooManyUploads("too_many_uploads", message)
    try:
        yield
    finally:
        upload_places.release()


@contextmanager
def decoding_slot() -> Iterator[None]:
    if not decoding_slots.acquire(timeout=SLOT_SECONDS):
        raise Unavailable(
            "busy", "Too many pictures are being checked at the same time. Send this one again in a minute."
        )
    try:
        yield
    finally:
        decoding_slots.release()


def read_capped(upload: UploadedFile) -> bytes:
    limit = settings.MAX_IMAGE_BYTES
    size = upload.size or 0
    if size > limit:
        message = (
            f"The file has {filesizeformat(size)}; at most {filesizeformat(limit)} are accepted. Export it smaller."
        )
        raise UploadTooLarge("file_too_large", message)
    received: bytes = upload.read()
    if not received:
        raise UploadRejected("empty_file", "The file is empty. Save the picture again and upload the new file.")
    return received


@dataclass(frozen=True)
class DecodedPicture:
    """A fully loaded picture: its format, whether its pixels are still those of the file, and the upright RGB form."""

    format: str
    untouched: bool
    upright: Image.Image


def decode(received: bytes) -> DecodedPicture:
    """Load a picture completely, turned upright and in sRGB. Raises UploadRejected."""
    with opened(received) as image:
        check_frames_and_size(image)
        image.load()
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        rgb = as_rgb(ImageOps.exif_transpose(image) if turned else image)
        upright = in_srgb(rgb, image.info.get("icc_profile"))
        untouched = image.mode in {"RGB", "L"} and not turned and upright is rgb
        # A PNG is written with the profile that its picture has here: of the sender's bytes nothing is kept.
        upright.info = {}
        return DecodedPicture(image.format or "", untouched, upright)


@contextmanager
def opened(received: bytes) -> Iterator[Image.Image]:
    """Open a picture and say every way of failing to decode it in the words of this module."""
    require_decodable(received)
    try:
        with warnings.catch_warnings():
            # Pillow warns of big pictures and odd metadata; size is checked here, metadata is thrown away.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(received), formats=ACCEPTED_FORMATS) as image:
                yield image
    except UploadRejected:
        raise
    except UnidentifiedImageError as error:
        raise not_accepted(received) from error
    except (Image.DecompressionBombError, MemoryError) as error:
        raise too_many_pixels() from error
    # Decoders tell of damage by every kind of error that there is; each of them means the same to the sender.
    except Exception as error:
        raise damaged() from error


def require_decodable(received: bytes) -> None:
    """Before any decoder reads the file. Raises UploadRejected."""
    try:
        require_modest_layout(received)
    except CostlyLayout as error:
        message = "The picture is packed so that reading it takes far more work than its pixels. Export it again."
        raise UploadRejected("too_costly", message) from error
    except WrongChecksum as error:
        raise damaged() from error


def damaged() -> UploadRejected:
    message = "The picture is damaged or cut off. Save or export it again and upload the new file."
    return UploadRejected("damaged_image", message)


def not_accepted(received: bytes) -> UploadRejected:
    """Tell a picture of another format from something that is no picture at all."""
    if name := name_of_refused(received):
        message = f"{name} pictures are not accepted. Save it as {FORMATS_IN_WORDS}."
        return UnsupportedFormat("unsupported_format", message)
    message = f"This is not a picture that can be read. Upload a {FORMATS_IN_WORDS} file."
    return UploadRejected("not_an_image", message)


def too_many_pixels() -> UploadRejected:
    limit = settings.MAX_IMAGE_PIXELS // 1_000_000
    message = f"The picture has more than {limit} million pixels. Crop it to the cell or export it smaller."
    return UploadRejected("too_many_pixels", message)


def check_frames_and_size(image: Image.Image) -> None:
    side = settings.MIN_IMAGE_SIDE
    if image.width * image.height > settings.MAX_IMAGE_PIXELS:
        raise too_many_pixels()
    if min(image.size) < side:
        message = f"The picture has {image.width} x {image.height} pixels; at least {side} x {side} are needed."
        raise UploadRejected("too_few_pixels", message)
    check_layout(image)
    # A phone's JPEG may carry previews behind the picture (MPO): the first one is the picture.
    if image.format != "MPO" and has_second_frame(image):
        message = "The file holds several pictures. Save each as a file of its own."
        raise UploadRejected("several_pictures", message)


def check_layout(image: Image.Image) -> None:
    """Refuse layouts that cost far more than their pixels: giant TIFF tiles, run-length BMP (decoded in Python)."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tile = (image.tag_v2.get(TILE_WIDTH, 0), image.tag_v2.get(TILE_LENGTH, 0))
        if tile[0] * tile[1] > settings.MAX_IMAGE_PIXELS:
            raise too_many_pixels()
    if isinstance(image, ImageFile.ImageFile) and any(part[0] == "bmp_rle" for part in image.tile):
        message = f"Run-length compressed BMP pictures are not accepted. Save it as {FORMATS_IN_WORDS}, uncompressed."
        raise UnsupportedFormat("unsupported_format", message)


def has_second_frame(image: Image.Image) -> bool:
    """Whether there is a frame after the first; counting them all could take minutes on a hostile file."""
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def as_rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB: 16 bits are scaled, not clipped; what is transparent becomes white."""
    if image.mode.startswith(("I", "F")):
        values = image.convert("F")
        brightest = float(str(values.getextrema()[1]))
        full = 65535.0 if image.mode.startswith("I") and brightest > 255 else max(brightest, 1.0)
        return values.point(lambda value: value * (255 / full)).convert("L").convert("RGB")
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba)
        return white
    # A copy of a large picture for nothing would cost as much as decoding it.
    return image if image.mode == "RGB" else image.convert("RGB")


def in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Colours as the sender's profile means them. A profile that can't be used is no reason to refuse a picture."""
    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        return ImageCms.profileToProfile(image, source, SRGB) or image
    except (ImageCms.PyCMSError, OSError):
        return image


def as_stored(picture: DecodedPicture, received: bytes) -> tuple[bytes, str]:
    """The bytes to keep and their extension."""
    if picture.format in {"JPEG", "MPO"} and picture.untouched:
        try:
            return without_metadata(received), "jpg"
        except NotPlainJpeg:
            pass
    buffer = io.BytesIO()
    picture.upright.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue(), "png"


def hash_pixels(image: Image.Image) -> str:
    """SHA-256 of width, height and RGB values: the same picture has the same hash whatever its file format."""
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    rows = max(1, 1_000_000 // image.width)
    for top in range(0, image.height, rows):
        digest.update(image.crop((0, top, image.width, min(top + rows, image.height))).tobytes())
    return digest.hexdigest()


def shown_name(name: str | None) -> str:
    """A sender's file name as it may be shown: the last part only, without control characters, at most 255 long."""
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(character for character in last if character.isprintable()).strip()[:255] or "unnamed"
