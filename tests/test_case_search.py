"""How the search finds a case: by its accession number, what it begins with, or the patient's pseudonym."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import User
from classifier import services
from classifier.models import ModelVersion
from tests.built_cases import Build, a, builder

SignIn = Callable[[User], Client]


@pytest.fixture
def build(technologist: User, reader: User, model_version: ModelVersion) -> Build:
    return builder(technologist, reader, model_version)


def search(client: Client, text: str) -> Any:
    return client.post(reverse("case-search"), {"accession_number": text})


def test_that_very_accession_number_opens_at_once(sign_in: SignIn, reader: User, build: Build) -> None:
    case = build("A-1")
    build("A-10", patient_pseudonym="A-1")

    for text in ("A-1", "a-1", "  A-1 "):
        assert search(sign_in(reader), text)["Location"] == reverse("case", args=[case.pk])


def test_search_lists_what_begins_alike_then_the_pseudonym_and_says_which(
    sign_in: SignIn, reader: User, build: Build
) -> None:
    build("P-7 second", patient_pseudonym="P-70")
    build("Z-2", patient_pseudonym="P-7")
    build("Z-1", patient_pseudonym="P-77")

    response = search(sign_in(reader), "P-7")

    rows = [(row.case.accession_number, row.found_by) for row in response.context["rows"]]
    assert rows == [("P-7 second", "number_begins"), ("Z-2", "pseudonym")]
    page = response.content.decode()
    assert "found by number" in page
    assert "found by pseudonym" in page


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("a-1", ["A-1\U0001f600", "a-10", "A-1 b"]),
        ("A-", ["A-1\U0001f600", "a-10", "A-1 b", "A--"]),
        ("A", ["A-1\U0001f600", "a-10", "A-1 b", "A--", "A1"]),
        ("A-10x", []),
    ],
)
def test_number_begins_sign_by_sign_in_any_letter_case(
    text: str, numbers: list[str], sign_in: SignIn, reader: User, technologist: User
) -> None:
    # What sorts between these in a language that passes over hyphens and spaces is there as well.
    for number in ("A1", "B-1", "A--", "A-1 b", "a-10", "A-1\U0001f600", "Z"):
        services.open_case(actor=technologist, accession_number=number)

    assert [row.case.accession_number for row in search(sign_in(reader), text).context["rows"]] == numbers


def test_number_of_the_greatest_length_is_found_by_its_beginning(
    sign_in: SignIn, reader: User, technologist: User
) -> None:
    services.open_case(actor=technologist, accession_number="\U0010ffff" * 64)

    assert len(search(sign_in(reader), "\U0010ffff").context["rows"]) == 1


def test_void_case_is_found_by_its_number(sign_in: SignIn, reader: User, build: Build) -> None:
    case = build("A-1")
    services.void_case(actor=reader, case=case, reason="Wrong patient")

    assert search(sign_in(reader), "A-1")["Location"] == reverse("case", args=[case.pk])


def test_search_finds_neither_number_nor_pseudonym_of_another_laboratory(
    sign_in: SignIn, stranger: User, build: Build
) -> None:
    case = build("A-1", patient_pseudonym="P-7")

    for text in ("A-1", "A", "P-7"):
        response = search(sign_in(stranger), text)
        assert response.status_code == 200
        assert str(case.pk) not in response.content.decode()
        assert "Nothing in your laboratory" in response.content.decode()


@pytest.mark.parametrize("text", ["%", "_", "A-%", "A_1", "\\"])
def test_signs_of_a_pattern_are_plain_characters(text: str, sign_in: SignIn, reader: User, build: Build) -> None:
    build("A-1")

    assert search(sign_in(reader), text).context["rows"] == []


@pytest.mark.parametrize(
    ("text", "sentence"), [("", "This field is required"), ("x" * 65, "at most 64 characters"), ("a\x00b", "Null")]
)
def test_search_for_what_can_not_be_a_number_is_said_in_a_sentence(
    text: str, sentence: str, sign_in: SignIn, reader: User
) -> None:
    response = search(sign_in(reader), text)

    assert response.status_code == 400
    assert sentence in response.content.decode()


def test_searched_text_reaches_no_address(sign_in: SignIn, reader: User, build: Build) -> None:
    build("SECRET-1", patient_pseudonym="SECRET")

    page = search(sign_in(reader), "SECRET").content.decode()

    assert "SECRET-1" in page
    assert not any("SECRET" in link for link in re.findall(r'(?:href|action|src)="([^"]*)"', page))


def test_search_shows_a_page_and_says_that_there_is_more(
    sign_in: SignIn, reader: User, technologist: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from classifier.views import worklist as page_of

    monkeypatch.setattr(page_of, "CASES_ON_PAGE", 3)
    for place in range(4):
        services.open_case(actor=technologist, accession_number=f"A-{place}")
    client = sign_in(reader)

    response = search(client, "A-")
    assert len(response.context["rows"]) == 3
    assert "The first 3 cases are shown" in response.content.decode()
    assert "type more" not in search(client, "A-3x").content.decode()


def test_queries_of_the_search_do_not_grow_with_what_it_finds(
    sign_in: SignIn, reader: User, build: Build, django_assert_num_queries: Any
) -> None:
    for place in range(12):
        services.assign_case(actor=reader, case=build(f"A-{place}", a("monocyte")), reader=reader)
    client = sign_in(reader)

    # Session, user, the number itself, what begins so, the pseudonym, the rows, tallies, settings, the bell.
    with django_assert_num_queries(9):
        assert len(search(client, "A-").context["rows"]) == 12
