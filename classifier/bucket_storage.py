"""The same private files in a bucket of an object store that speaks S3, for instances on several machines.

Only where S3_BUCKET names one is this imported: botocore is needed by nobody else. Requests are made one by one and
small, without the transfer threads of boto3: a picture is one PUT, and one GET when it is read.
"""

import errno
import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any
from uuid import uuid4

import botocore.session
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.core.files import File
from django.utils.deconstruct import deconstructible

from classifier.errors import StorageUnavailable
from classifier.storage import PrivateFiles, StoredFile

logger = structlog.get_logger(__name__)
# Bytes that are fetched at once: all of most pictures, and a part of an archive or export.
BLOCK = 4 * 1024**2
CHECKED_SECONDS = 10.0
# Asked once, not for long: a store that hangs must hold no task until TASK_SECONDS end it, and no page for a minute.
CONNECT_SECONDS, READ_SECONDS = 2.0, 8.0
NAMES_TRIED = 20
# Another file has the name, or somebody writes it at this very moment.
TAKEN = {"PreconditionFailed", "ConditionalRequestConflict"}
MISSING = {"NoSuchKey", "404"}
# More than the store, or a proxy before it, takes in one request.
TOO_LARGE = {"EntityTooLarge", "413"}
# Who wrote an object, noted with it: a store or a proxy may carry out one request twice, and refuse it then.
WRITER = "writer"


@deconstructible(path="classifier.bucket_storage.BucketStorage")
class BucketStorage(PrivateFiles):
    """Files as objects of one bucket, their names behind `prefix`.

    A name that is taken is never written over (`save` asks the store to refuse that). A missing file is a
    FileNotFoundError, one that is too large an OSError (EFBIG); every other refusal is StorageUnavailable.
    """

    def __init__(
        self,
        *,
        bucket: str,
        endpoint_url: str = "",
        region: str = "",
        access_key: str = "",
        secret_key: str = "",
        addressing: str = "auto",
        prefix: str = "",
    ) -> None:
        self.bucket, self.prefix = bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.place: dict[str, Any] = {
            "endpoint_url": endpoint_url or None,
            "region_name": region or None,
            # Without keys botocore looks where it always does: its variables, its files, the machine's role.
            "aws_access_key_id": access_key or None,
            "aws_secret_access_key": secret_key or None,
        }
        self.addressing = addressing
        self.lock = threading.Lock()
        self.connected: tuple[int, Any] | None = None
        self.checked: tuple[float, str | None] | None = None

    @property
    def client(self) -> Any:
        """One for all threads of a process; what a parent process connected is not used by its children."""
        if self.connected is None or self.connected[0] != os.getpid():
            with self.lock:
                if self.connected is None or self.connected[0] != os.getpid():
                    self.connected = (os.getpid(), self.connect())
        return self.connected[1]

    def connect(self) -> Any:
        ways = Config(
            s3={"addressing_style": self.addressing},
            # Our own SHA-256 is checked whenever a picture is read; not every store knows the newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=32,
        )
        return botocore.session.Session().create_client("s3", config=ways, **self.place)

    def key(self, name: str) -> str:
        return self.prefix + name.replace("\\", "/").lstrip("/")

    def at(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.key(name)}

    # --- Django's verbs --------------------------------------------------------------------------------------------
    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        # Whether it is taken the write itself asks: nobody comes in between, and it costs no request of its own.
        return name

    def _save(self, name: str, content: File) -> str:
        stored, writer = name, uuid4().hex
        for _ in range(NAMES_TRIED):
            try:
                self.put(stored, content, IfNoneMatch="*", Metadata={WRITER: writer})
            except FileExistsError:
                # Unless it is we who have it: the answer to the first of two tries was lost on its way.
                if not self.is_written_by(writer, stored):
                    stored = self.get_alternative_name(*os.path.splitext(name))
                    continue
            self.note(stored)
            return stored
        raise StorageUnavailable

    def is_written_by(self, writer: str, name: str) -> bool:
        try:
            return bool(self.head(name).get("Metadata", {}).get(WRITER) == writer)
        except FileNotFoundError:
            # Somebody else was about to write it, and did not.
            return False

    def open(self, name: str, mode: str = "rb") -> File:
        if mode != "rb":
            message = "A stored file is never changed: save another one."
            raise ValueError(message)
        return StoredObject(self, name)

    def delete(self, name: str) -> None:
        self.ask("delete_object", name)

    def exists(self, name: str) -> bool:
        try:
            self.size(name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        return int(self.head(name)["ContentLength"])

    def head(self, name: str) -> Any:
        """What the store says of an object. Raises as `ask` does."""
        try:
            return self.ask("head_object", name)
        except FileNotFoundError:
            # An answer to HEAD has no words: 404 may be the file or the bucket.
            if self.looked_at() is not None:
                raise StorageUnavailable from None
            raise

    # --- Ours ------------------------------------------------------------------------------------------------------
    def replace(self, name: str, content: bytes) -> None:
        self.ask("put_object", name, Body=content)

    def files(self, under: str = "") -> Iterator[StoredFile]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.key(under))
        with refusals_told():
            for page in pages:
                for found in page.get("Contents", ()):
                    name = found["Key"].removeprefix(self.prefix)
                    yield StoredFile(name, found["Size"], found["LastModified"].timestamp())

    def obstacle(self) -> str | None:
        """By one request, at most every ten seconds: whether the bucket is there and lets us in."""
        now = time.monotonic()
        if self.checked is None or now - self.checked[0] >= CHECKED_SECONDS:
            self.checked = (now, self.looked_at())
        return self.checked[1]

    def looked_at(self) -> str | None:
        try:
            self.client.head_bucket(Bucket=self.bucket)
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return {403: "bucket_refused", 404: "bucket_missing"}.get(status, "storage_unavailable")
        except (BotoCoreError, ValueError):
            # A ValueError is an address that can't be one.
            return "storage_unavailable"
        return None

    def works(self) -> bool:
        """By writing a small object and reading it: a store that lets us in may still have lost its disks."""
        name = f"probe-{uuid4().hex}"
        try:
            self.replace(name, b"1")
            self.block(name, 0)
            self.delete(name)
        except (StorageUnavailable, FileNotFoundError):
            return False
        return True

    def put(self, name: str, content: File, **condition: Any) -> None:
        """Write an object, all of it or nothing; what is larger than a block is not read into memory."""
        content.seek(0)
        body = content.read() if content.size <= BLOCK else content
        self.ask("put_object", name, Body=body, **condition)

    def ask(self, verb: str, name: str, **more: Any) -> Any:
        """One request about one file. Raises FileNotFoundError, FileExistsError, OSError (EFBIG), or else
        StorageUnavailable.
        """
        with refusals_told():
            return getattr(self.client, verb)(Bucket=self.bucket, Key=self.key(name), **more)

    def block(self, name: str, start: int) -> tuple[bytes, int]:
        """A block of the file from `start` on, and the size of the whole. Raises as `ask` does."""
        with refusals_told():
            try:
                asked = f"bytes={start}-{start + BLOCK - 1}"
                answer = self.client.get_object(Bucket=self.bucket, Key=self.key(name), Range=asked)
            except ClientError as error:
                # An empty file has no range.
                if code_of(error) == "InvalidRange":
                    return b"", start
                raise
            content: bytes = answer["Body"].read()
        return content, int(answer.get("ContentRange", f"/{len(content)}").rsplit("/", 1)[1])


@contextmanager
def refusals_told() -> Iterator[None]:
    """What the store refuses, in the words of this platform: only a missing or a taken file is the file's own affair.

    A missing bucket is not a missing file: nothing is wrong with the picture.
    """
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        code = code_of(error)
        if code in MISSING:
            raise FileNotFoundError(code) from error
        if code in TAKEN:
            raise FileExistsError(code) from error
        if code in TOO_LARGE:
            raise OSError(errno.EFBIG, code) from error
        logger.warning("storage_unavailable", code=code)
        raise StorageUnavailable from error


def code_of(error: ClientError | BotoCoreError) -> str:
    """The store's own code, or the kind of what went wrong on the way to it."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return type(error).__name__


class StoredObject(File):
    """A file of the bucket, opened for reading; it can be opened again after it was closed."""

    def __init__(self, storage: BucketStorage, name: str) -> None:
        self.storage = storage
        super().__init__(self.fetched(name), name)

    def fetched(self, name: str) -> IO[bytes]:
        first, size = self.storage.block(name, 0)
        if size <= len(first):
            return io.BytesIO(first)
        return io.BufferedReader(BlockReader(self.storage, name, first, size), BLOCK)

    def open(self, mode: str | None = None, *args: Any, **options: Any) -> "StoredObject":
        if self.closed:
            self.file = self.fetched(str(self.name))
        self.seek(0)
        return self


class BlockReader(io.RawIOBase):
    """A large object, fetched block by block from wherever somebody reads: a ZIP archive is read from its end."""

    def __init__(self, storage: BucketStorage, name: str, first: bytes, size: int) -> None:
        self.storage, self.object_name, self.first, self.size = storage, name, first, size
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.position = max(0, {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence] + offset)
        return self.position

    def readinto(self, buffer: Any) -> int:
        if self.position >= self.size:
            return 0
        content = self.first[self.position : self.position + len(buffer)]
        if not content:
            content = self.storage.block(self.object_name, self.position)[0][: len(buffer)]
        buffer[: len(content)] = content
        self.position += len(content)
        return len(content)
