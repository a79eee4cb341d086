"""Queues the pictures that a file names in a fresh case of the demo laboratory; part of the drain measurement."""

import os
import sys
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hematovision.settings")
django.setup()

from django.core.files.uploadedfile import SimpleUploadedFile  # noqa: E402 - Django's models need the setup above

from accounts.models import User  # noqa: E402
from classifier.services import add_image, open_case  # noqa: E402


def main(names: Path) -> None:
    actor = User.objects.get(email="technologist@demo.example")
    case = open_case(actor=actor)
    for path in names.read_text().splitlines():
        add_image(actor=actor, case=case, upload=SimpleUploadedFile("cell.jpg", Path(path).read_bytes()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
