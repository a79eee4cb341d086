"""`python -m tests.hostile_run`: sends every hostile file through the decoders, each in a process of its own.

Prints one JSON object: description -> {answer, extension, kept, seconds, megabytes}. `answer` is a refusal's code or
"accepted"; `seconds` are of the processor, `megabytes` what the process grew by at its highest.
"""

import io
import json
import os
import sys
import traceback
from typing import Any

import django
from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image

from classifier.errors import UploadRejected
from ml.images import decode
from tests.hostile_files import CORPUS, PAYLOAD, jpeg

PLANTED = PAYLOAD[15:29]


def highest_kilobytes() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def forget_the_highest() -> None:
    with open("/proc/self/clear_refs", "w") as switch:
        switch.write("5")


def judged(content: bytes) -> dict[str, Any]:
    """What becomes of a file: the web process's decoder first, then, on what is kept, the worker's."""
    from classifier.uploads import accept_upload

    forget_the_highest()
    before, started = highest_kilobytes(), os.times()
    kept: dict[str, Any] = {"answer": "accepted"}
    try:
        accepted = accept_upload(SimpleUploadedFile("cell.jpg", content))
    except UploadRejected as refusal:
        kept = {"answer": refusal.code}
    else:
        decode(accepted.content)
        with Image.open(io.BytesIO(accepted.content)) as picture:
            about = sorted({"icc_profile", "exif", "xmp", "comment"} & set(picture.info))
        kept |= {"extension": accepted.extension, "kept": about, "planted": PLANTED in accepted.content}
    ended = os.times()
    seconds = ended.user + ended.system - started.user - started.system
    return kept | {"seconds": round(seconds, 2), "megabytes": round((highest_kilobytes() - before) / 1024, 1)}


def in_a_process_of_its_own(content: bytes) -> dict[str, Any]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told: dict[str, Any] = judged(content)
        except BaseException:  # noqa: BLE001 - whatever gets out here would be a 500 there
            told = {"answer": f"crashed: {traceback.format_exc()}"}
        os.write(writer, json.dumps(told).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"answer": f"killed: {status}"}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hematovision.settings")
    django.setup()
    # What is loaded once is not a picture's doing.
    judged(jpeg())
    wanted = sys.argv[1:] or list(CORPUS)
    json.dump({name: in_a_process_of_its_own(CORPUS[name].make()) for name in wanted}, sys.stdout)


if __name__ == "__main__":
    main()
