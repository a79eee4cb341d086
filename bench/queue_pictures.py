"""Queues the pictures that a file names in a fresh case of the demo laboratory; part of the drain measurement."""

from pathlib import Path

from django.core.files.uploadedfile import SimpleUploadedFile

from accounts.models import User
from classifier.services import add_image, open_case


def main(words: list[str]) -> None:
    actor = User.objects.get(email="technologist@demo.example")
    case = open_case(actor=actor)
    for path in Path(words[0]).read_text().splitlines():
        add_image(actor=actor, case=case, upload=SimpleUploadedFile("cell.jpg", Path(path).read_bytes()))
