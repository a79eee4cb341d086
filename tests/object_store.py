"""A real object store for the tests: SeaweedFS, whose program comes with a package, on ports of this machine."""

import json
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from hematovision.embedded import die_with_parent
from tests.servers import private_place

START_SECONDS = 60


def free_ports(count: int) -> list[int]:
    """Ports whose number plus 10,000 is free as well: there each of its servers listens for the others."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            port = 20_000 + secrets.randbelow(10_000)
            try:
                for number in (port, port + 10_000):
                    held.enter_context(socket.create_server(("127.0.0.1", number)))
            except OSError:
                continue
            found.append(port)
    return found


class ObjectStore:
    """The store with its one bucket. `stop` and `start` are an outage; what it keeps stays."""

    bucket = "originals"

    def __init__(self) -> None:
        self.place = private_place()
        self.access_key, self.secret_key = secrets.token_hex(10), secrets.token_hex(20)
        self.master, self.volume, self.filer, self.port = free_ports(4)
        keys = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        may = ["Admin", "Read", "Write", "List"]
        identities = {"identities": [{"name": "hematovision", "credentials": keys, "actions": may}]}
        (self.place / "keys.json").write_text(json.dumps(identities))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def options(self) -> dict[str, str]:
        """What `BucketStorage` takes."""
        keys = {"access_key": self.access_key, "secret_key": self.secret_key}
        return {"bucket": self.bucket, "endpoint_url": self.url, "region": "us-east-1", "addressing": "path", **keys}

    @property
    def variables(self) -> dict[str, str]:
        """The same, as an instance's environment says it."""
        place = {"S3_BUCKET": self.bucket, "S3_ENDPOINT_URL": self.url, "S3_ADDRESSING": "path"}
        return {**place, "S3_ACCESS_KEY": self.access_key, "S3_SECRET_KEY": self.secret_key}

    def client(self) -> Any:
        ways = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=1)
        keys = {"aws_access_key_id": self.access_key, "aws_secret_access_key": self.secret_key}
        place = {"endpoint_url": self.url, "region_name": "us-east-1"}
        return botocore.session.Session().create_client("s3", config=ways, **place, **keys)

    def start(self) -> None:
        program = Path(sys.executable).parent / "weed"
        options = {
            **{"dir": str(self.place), "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "volume.max": "20"},
            **{"master.port": self.master, "volume.port": self.volume, "filer.port": self.filer, "s3.port": self.port},
            **{"master.telemetry": "false", "master.volumeSizeLimitMB": 128, "s3.config": self.place / "keys.json"},
            **{"s3.port.iceberg": 0, "s3.port.lance": 0, "s3.iam": "false", "volume.preStopSeconds": 0},
        }
        flags = [f"-{name}={value}" for name, value in options.items()]
        with (self.place / "store.log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, "-logtostderr=true", "server", "-filer", "-s3", *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(),
                process_group=0,
            )
        self.wait()

    def wait(self) -> None:
        """Until it takes a file: its parts find each other one after the other."""
        client, deadline = self.client(), time.monotonic() + START_SECONDS
        while True:
            try:
                if self.bucket not in {each["Name"] for each in client.list_buckets().get("Buckets", ())}:
                    client.create_bucket(Bucket=self.bucket)
                client.put_object(Bucket=self.bucket, Key="started", Body=b"yes")
                client.delete_object(Bucket=self.bucket, Key="started")
            except (BotoCoreError, ClientError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def pause(self) -> None:
        """Take it away, as an outage does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def names(self) -> list[str]:
        """What is in the bucket."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def empty(self) -> None:
        for name in self.names():
            self.client().delete_object(Bucket=self.bucket, Key=name)

    def stop(self) -> None:
        self.pause()
        shutil.rmtree(self.place, ignore_errors=True)
