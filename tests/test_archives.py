"""An archive is judged whole by its directory, and file by file; nothing in it can lead out of it or flood it."""

import io
import random
import struct
import time
import zipfile
from typing import Any

import pytest

from classifier import archives
from classifier.errors import UploadRejected
from tests.zips import cells, zip_of


def refused(content: bytes) -> str:
    with pytest.raises(UploadRejected) as caught, archives.opened(io.BytesIO(content)):
        pass
    assert caught.value.message.endswith(".")
    return caught.value.code


def member_refused(name: str, content: bytes = b"x", **attributes: Any) -> str:
    """The code with which a single member is refused."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(name)
        for key, value in attributes.items():
            setattr(info, key, value)
        archive.writestr(info, content)
    with archives.opened(buffer) as archive, pytest.raises(UploadRejected) as caught:
        archives.content_of(archive, archive.infolist()[0])
    return caught.value.code


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        b"no archive at all" * 100,
        b"PK\x05\x06",
        zip_of(cells(2))[:-30],
        b"PK\x05\x06" + b"\xff" * 18,
        b"PK\x06\x07" + b"\xff" * 16 + b"PK\x05\x06" + b"\xff" * 18,
    ],
    ids=["empty", "two bytes", "text", "stump", "cut off", "nonsense", "nonsense in 64 bits"],
)
def test_what_is_no_archive_is_refused_whole(content: bytes) -> None:
    assert refused(content) == "not_an_archive"


def test_encrypted_archive_is_refused_whole() -> None:
    content = bytearray(zip_of({"a.jpg": b"x"}))
    at = content.rindex(b"PK\x01\x02")
    content[at + 8] |= 1
    assert refused(bytes(content)) == "encrypted_archive"


def test_archive_with_too_many_files_is_refused_before_its_directory_is_read(settings: Any) -> None:
    settings.MAX_ARCHIVE_MEMBERS = 3
    assert refused(zip_of(cells(4))) == "too_many_members"
    with archives.opened(io.BytesIO(zip_of(cells(3)))) as archive:
        assert len(archive.infolist()) == 3


def test_archive_that_denies_its_directory_is_refused(settings: Any) -> None:
    """The record at the end says one file; the directory holds many. Its length is what counts."""
    settings.MAX_ARCHIVE_MEMBERS = 3
    content = bytearray(zip_of(cells(40)))
    at = content.rindex(b"PK\x05\x06")
    content[at + 8 : at + 12] = struct.pack("<HH", 1, 1)
    assert refused(bytes(content)) == "too_many_members"


def test_directory_that_claims_gigabytes_is_not_read(settings: Any) -> None:
    content = bytearray(zip_of(cells(1)))
    at = content.rindex(b"PK\x05\x06")
    content[at + 12 : at + 16] = struct.pack("<L", 0xFFFFFFF0)
    assert refused(bytes(content)) == "not_an_archive"


def test_bomb_is_refused_by_its_ratio_and_by_what_it_unpacks_to(settings: Any) -> None:
    bomb = zip_of({"a.bmp": bytes(3_000_000)})
    assert refused(bomb) == "archive_ratio"
    settings.MAX_ARCHIVE_UNPACKED_BYTES = 1_000_000
    assert refused(bomb) == "archive_unpacks_too_large"


def test_file_that_is_larger_than_it_declares_is_refused_alone() -> None:
    content = bytearray(zip_of({"a.jpg": b"y" * 5000}, zipfile.ZIP_DEFLATED))
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<L", 10)
    with archives.opened(io.BytesIO(bytes(content))) as archive, pytest.raises(UploadRejected) as caught:
        archives.content_of(archive, archive.infolist()[0])
    assert caught.value.code == "damaged_member"


def test_never_more_is_read_than_a_picture_may_have(settings: Any) -> None:
    settings.MAX_IMAGE_BYTES = 1000
    large = io.BytesIO(zip_of({"a.jpg": b"z" * 1001}))
    with archives.opened(large) as archive, pytest.raises(UploadRejected) as caught:
        archives.content_of(archive, archive.infolist()[0])
    assert caught.value.code == "file_too_large"


@pytest.mark.parametrize(
    "name", ["../a.jpg", "a/../../b.jpg", "/etc/passwd", "\\\\host\\a.jpg", "C:\\a.jpg", "..\\a.jpg"]
)
def test_name_that_leads_out_of_the_archive_is_refused_alone(name: str) -> None:
    assert member_refused(name) == "unsafe_name"


def test_link_is_refused_alone() -> None:
    assert member_refused("a.jpg", b"/etc/passwd", create_system=3, external_attr=0o120777 << 16) == "not_a_file"


@pytest.mark.parametrize(
    ("name", "content"),
    [("inner.zip", b"x"), ("a.tar.gz", b"x"), ("cell.jpg", zip_of({"a.jpg": b"x"})), ("cell.jpg", b"\x1f\x8b\x08\x00")],
)
def test_archive_in_the_archive_is_refused_alone(name: str, content: bytes) -> None:
    assert member_refused(name, content) == "nested_archive"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_method_that_unpacks_without_a_bound_is_not_opened(method: int, monkeypatch: Any) -> None:
    content = zip_of({"a.jpg": b"x" * 50, "labels.csv": b"a.jpg,monocyte\n"}, method)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("it must not be read"))
    with archives.opened(io.BytesIO(content)) as archive:
        with pytest.raises(UploadRejected) as caught:
            archives.content_of(archive, archive.infolist()[0])
        labels = archives.labels_of(archive)
    assert caught.value.code == "unsupported_compression"
    assert labels.by_name == {}
    assert [code for _, code, _ in labels.complaints] == ["labels_unreadable"]


def test_member_for_which_memory_does_not_suffice_is_refused_alone(monkeypatch: Any) -> None:
    def exhausted(*_: Any) -> bytes:
        raise MemoryError

    monkeypatch.setattr(zipfile.ZipExtFile, "read", exhausted)
    assert member_refused("a.jpg") == "damaged_member"


def test_name_that_is_far_too_long_is_refused_alone_and_searched_for_no_label() -> None:
    assert member_refused("a/" * 512 + "b.jpg") == "unsafe_name"
    labels = archives.read_labels(b"b.jpg,monocyte\n")
    assert archives.label_for(labels, "a/" * 500 + "b.jpg") == ("b.jpg", "monocyte")
    name = "a/" * 30_000 + "b.jpg"
    started = time.process_time()
    for known in (labels, archives.Labels({}, [])):
        assert archives.label_for(known, name) == ("", "")
    assert time.process_time() - started < 0.5, "without the bound it takes seconds"


def test_labels_end_with_the_most_files_that_an_archive_may_hold(settings: Any) -> None:
    settings.MAX_ARCHIVE_MEMBERS = 3
    lines = "file,label\n" + "".join(f"{number}.jpg,blast\n" for number in range(20))
    labels = archives.read_labels(lines.encode())
    assert [(line, code) for line, code, _ in labels.complaints] == [
        (2, "unknown_label"),
        (3, "unknown_label"),
        (4, "unknown_label"),
        (5, "labels_too_long"),
    ]


def test_damaged_member_is_refused_alone() -> None:
    content = bytearray(zip_of({"a.jpg": b"q" * 500, "b.jpg": b"fine"}, zipfile.ZIP_STORED))
    content[content.index(b"q" * 500) + 20] ^= 0xFF
    with archives.opened(io.BytesIO(bytes(content))) as archive:
        first, second = archive.infolist()
        with pytest.raises(UploadRejected) as caught:
            archives.content_of(archive, first)
        assert caught.value.code == "damaged_member"
        assert archives.content_of(archive, second) == b"fine"


@pytest.mark.parametrize(
    "name",
    [
        "a/",
        "__MACOSX/._a.jpg",
        "deep/__MACOSX/a.jpg",
        ".DS_Store",
        "a/.DS_Store",
        "a/._b.jpg",
        "Thumbs.db",
        "labels.csv",
        "set/Labels.CSV",
    ],
)
def test_what_systems_add_is_ignored(name: str) -> None:
    assert archives.is_ignored(name)


@pytest.mark.parametrize("name", ["a.jpg", "a/b/labels.csv", "macosx/a.jpg", "ds_store", "..jpg"])
def test_what_people_send_is_not_ignored(name: str) -> None:
    assert not archives.is_ignored(name)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x07b\n.jpg", "a?b?.jpg"),
        ("a\\b.jpg", "a/b.jpg"),
        ("Zellen \u00fc/1.jpg", "Zellen \u00fc/1.jpg"),
        ("x" * 5000 + "/1.jpg", "x" * 294 + "/1.jpg"),
        ("\u202egpj.exe", "?gpj.exe"),
        ("", "unnamed"),
    ],
)
def test_odd_names_are_shown_harmlessly(name: str, shown: str) -> None:
    assert archives.shown_path(name) == shown


def test_labels_are_read_with_every_usual_separator_and_alias() -> None:
    text = "file,label\na.jpg,Neutrophils\n\nsub/b.jpg,IG\n"
    for written in (text, text.replace(",", ";"), text.replace(",", "\t"), text.removeprefix("file,label\n")):
        labels = archives.read_labels(b"\xef\xbb\xbf" + written.encode())
        assert labels.by_name == {"a.jpg": "neutrophil", "sub/b.jpg": "immature_granulocyte"}
        assert labels.complaints == []


def test_each_bad_line_of_labels_is_named_and_the_others_count() -> None:
    labels = archives.read_labels(b"file,label\na.jpg,blast\nb.jpg\nc.jpg,monocyte\nc.jpg,basophil\n")
    assert labels.by_name == {"c.jpg": "monocyte"}
    assert [(line, code) for line, code, _ in labels.complaints] == [
        (2, "unknown_label"),
        (3, "label_incomplete"),
        (5, "label_twice"),
    ]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00a", b'"' + b"a" * 200_000])
def test_labels_that_are_no_text_are_refused_with_a_sentence(content: bytes) -> None:
    labels = archives.read_labels(content)
    assert labels.by_name == {}
    assert [code for _, code, _ in labels.complaints] == ["labels_unreadable"]


def test_label_is_found_by_the_whole_path_or_its_end() -> None:
    labels = archives.read_labels(b"a.jpg,monocyte\nset/a.jpg,basophil\n")
    assert archives.label_for(labels, "set/a.jpg") == ("set/a.jpg", "basophil")
    assert archives.label_for(labels, "other/a.jpg") == ("a.jpg", "monocyte")
    assert archives.label_for(labels, "b.jpg") == ("", "")


def test_archive_in_64_bits_is_read_and_counted_by_its_larger_record(monkeypatch: Any, settings: Any) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    content = zip_of(cells(5))
    assert b"PK\x06\x06" in content
    for prefix in (b"", b"#!/bin/sh a program that unpacks itself\n" * 50):
        with archives.opened(io.BytesIO(prefix + content)) as archive:
            assert len(archive.infolist()) == 5
    settings.MAX_ARCHIVE_MEMBERS = 4
    assert refused(content) == "too_many_members"


def test_directory_that_is_far_too_large_for_its_files_is_refused(monkeypatch: Any) -> None:
    monkeypatch.setattr(archives, "DIRECTORY_BYTES_A_MEMBER", 0.01)
    content = bytearray(zip_of(cells(3)))
    assert refused(bytes(content)) == "directory_too_large"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_of_any_kind_ends_in_a_refusal(method: int) -> None:
    """Bytes changed at random, most of them in the records: whatever happens, it has a code and a sentence."""
    chance = random.Random(7)
    whole = zip_of({**cells(3), "labels.csv": b"file,label\na.jpg,monocyte\n"}, method)
    directory = whole.index(b"PK\x01\x02")
    codes = set()
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 2, 8))):
            first = chance.choice((0, directory, directory, len(content) - 22))
            content[chance.randrange(first, len(content))] = chance.randrange(256)
        try:
            with archives.opened(io.BytesIO(bytes(content))) as archive:
                archives.labels_of(archive)
                for member in archive.infolist():
                    codes.add(code_of(archive, member))
        except UploadRejected as error:
            codes.add(error.code)
    assert {"", "not_an_archive", "damaged_member"} <= codes


def code_of(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> str:
    try:
        archives.content_of(archive, member)
    except UploadRejected as error:
        return error.code
    return ""
