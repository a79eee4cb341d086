"""The worklist as a page: filters in its address, pages, what a row says, and what it costs."""

import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from classifier import services
from classifier.models import Case, ModelVersion, Report
from tests.built_cases import UNSURE, Build, a, builder
from tests.conftest import person

SignIn = Callable[[User], Client]


@pytest.fixture
def older_model(model_version: ModelVersion) -> ModelVersion:
    return ModelVersion.objects.create(
        name="older", version="0.9", sha256="0" * 64, labels=model_version.labels, preprocessing_version="1"
    )


@pytest.fixture
def build(technologist: User, reader: User, model_version: ModelVersion) -> Build:
    return builder(technologist, reader, model_version)


def test_numbers_on_top_lead_to_lists_of_that_length(sign_in: SignIn, reader: User, build: Build) -> None:
    build("A-1", a("monocyte"))
    build("A-2", a("monocyte", final="monocyte"))
    build("A-3")
    services.void_case(actor=reader, case=build("A-4"), reason="Wrong patient")
    client = sign_in(reader)
    page = client.get(reverse("cases")).content.decode()
    tabs = page.split('<nav class="worklist-tabs"')[1].split("</nav>")[0]

    links = re.findall(r'href="([^"]*)"[^>]*>[^<]*<span class="num">(\d+)</span>', tabs)

    assert [int(n) for _, n in links] == [3, 1, 2, 1, 0, 0, 0, 1]
    for link, n in links:
        url = link.replace("&amp;", "&") if link.startswith("/") else reverse("cases") + link.replace("&amp;", "&")
        assert len(client.get(url).context["rows"]) == int(n), link


def shown(client: Client, **query: Any) -> list[str]:
    response = client.get(reverse("cases"), query)
    assert response.status_code == 200
    return [row.case.accession_number for row in response.context["rows"]]


def test_filters_stand_in_the_address(
    sign_in: SignIn, reader: User, technologist: User, build: Build, older_model: ModelVersion
) -> None:
    services.assign_case(actor=technologist, case=build("A-1", a("basophil", 0.5), UNSURE), reader=reader)
    build("A-2", a("monocyte", final="monocyte"))
    client = sign_in(reader)
    version, today = ModelVersion.objects.get(active=True), timezone.localdate().isoformat()

    assert shown(client, cell_type="basophil") == ["A-1"]
    assert shown(client, confidence_below="60") == ["A-1"]
    assert shown(client, confidence_below="99.5") == ["A-2", "A-1"]
    assert shown(client, unidentified="yes") == ["A-1"]
    assert shown(client, model=str(version.pk)) == ["A-2", "A-1"]
    assert shown(client, model=str(older_model.pk)) == []
    assert shown(client, reviewer=str(reader.pk)) == ["A-2"]
    assert shown(client, assigned="me") == ["A-1"]
    assert shown(client, assigned="nobody") == ["A-2"]
    assert shown(client, assigned=str(technologist.pk)) == []
    assert shown(client, opened_from=today, opened_to=today, status="open") == ["A-1"]
    assert shown(client, status="", cell_type="", confidence_below="", order="newest") == ["A-2", "A-1"]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"status": "finished"}, "There is no such state of a case"),
        ({"cell_type": "blast"}, "There is no such cell type"),
        ({"model": "1.1.0"}, "There is no such model version"),
        ({"model": str(uuid.uuid4())}, "There is no such model version"),
        ({"unidentified": "perhaps"}, "There is no such choice"),
        ({"confidence_below": "high"}, "Give the confidence as a percentage"),
        ({"confidence_below": "-1"}, "Give the confidence as a percentage"),
        ({"confidence_below": "101"}, "Give the confidence as a percentage"),
        ({"confidence_below": "nan"}, "Give the confidence as a percentage"),
        ({"reviewer": "me"}, "There is no such reviewer"),
        ({"assigned": str(uuid.uuid4())}, "There is no such person"),
        ({"assigned": "x\x00y"}, "There is no such person"),
        ({"opened_from": "yesterday"}, "Give the day as year, month and day"),
        ({"opened_to": "2026-02-30"}, "Give the day as year, month and day"),
        ({"opened_to": "9999-12-31"}, "Choose days from 1900 on"),
        ({"opened_from": "0001-01-01"}, "Choose days from 1900 on"),
        ({"opened_from": "2026-03-02", "opened_to": "2026-03-01"}, "The first day comes after the last one"),
        ({"order": "random"}, "There is no such order"),
    ],
)
def test_filter_that_can_not_be_is_said_in_a_sentence_and_shows_nothing(
    query: dict[str, str], sentence: str, sign_in: SignIn, reader: User, build: Build
) -> None:
    build("A-1")

    response = sign_in(reader).get(reverse("cases"), query)

    page = response.content.decode()
    assert response.status_code == 400
    assert sentence in page
    assert "Nothing is shown" in page
    assert "A-1" not in page


def test_colleagues_of_another_laboratory_are_neither_offered_nor_taken(
    sign_in: SignIn, reader: User, stranger: User, build: Build
) -> None:
    client = sign_in(reader)

    assert str(stranger) not in client.get(reverse("cases")).content.decode()
    for name in ("assigned", "reviewer"):
        assert client.get(reverse("cases"), {name: str(stranger.pk)}).status_code == 400


def test_somebody_who_left_can_still_be_filtered_by(sign_in: SignIn, reader: User, build: Build) -> None:
    gone = person("gone@north.example", "Gil Gone", reader.laboratory, "reader")  # type: ignore[arg-type]
    build("A-1", a("monocyte", final="monocyte", by=gone))
    build("A-2", a("monocyte", final="monocyte"))
    User.objects.filter(pk=gone.pk).update(is_active=False)
    client = sign_in(reader)

    assert "Gil Gone (left)" in client.get(reverse("cases")).content.decode()
    assert shown(client, reviewer=str(gone.pk)) == ["A-1"]


@pytest.mark.parametrize("order", ["newest", "waiting"])
def test_pages_follow_each_other_without_gaps_or_repeats_and_keep_the_filters(
    order: str, sign_in: SignIn, reader: User, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    from classifier.views import worklist as page_of

    monkeypatch.setattr(page_of, "CASES_ON_PAGE", 3)
    start = timezone.now() - timedelta(days=9)
    for place in range(8):
        build(f"A-{place}", opened_at=start + timedelta(days=place))
        Case.objects.filter(pk=build(f"R-{place}", opened_at=start).pk).update(status="released")
    client, query, seen, first = sign_in(reader), f"?status=open&order={order}", [], ""
    further, back = ("newer", "older") if order == "waiting" else ("older", "newer")

    while query:
        response = client.get(reverse("cases") + query)
        page, last = response.context["page"], response.context["page"]
        seen += [row.case.accession_number for row in response.context["rows"]]
        query = page[further]
        assert query is None or "status=open" in query
        first = first or query
    assert last[back]

    newest_first = [f"A-{place}" for place in reversed(range(8))]
    assert seen == (newest_first if order == "newest" else newest_first[::-1])


def test_signed_cases_wait_for_nobody(sign_in: SignIn, reader: User, build: Build) -> None:
    build("A-1")
    Case.objects.filter(pk=build("A-2").pk).update(status="released")
    client = sign_in(reader)

    assert shown(client, order="waiting") == ["A-1"]
    assert shown(client, order="waiting", status="released") == ["A-2"]


def test_row_says_what_a_case_comes_to(sign_in: SignIn, technologist: User, reader: User, build: Build) -> None:
    case = build(
        "A-1",
        *[a("neutrophil", final="neutrophil") for _ in range(3)],
        a("monocyte"),
        UNSURE,
        UNSURE,
        {"status": "failed"},
        {"status": "queued"},
        patient_pseudonym="P-77",
    )
    services.assign_case(actor=technologist, case=case, reader=reader)

    page = sign_in(reader).get(reverse("cases")).content.decode()

    row = " ".join(re.sub(r"<[^>]+>", " ", page.split("<tbody>")[1].split("</tbody>")[0]).split())
    for words in (
        "A-1 P-77 In review 4 of 100 3 reviewed",
        "Neutrophil H",
        "Monocyte H",
        "Lymphocyte L",
        "2 unidentified",
        "1 failed",
        "1 waiting",
        "Ruth Reyes you",
    ):
        assert words in row
    assert "Neutrophil 3, Monocyte 1, Unidentified 2" in page


def test_flags_that_rest_on_the_models_word_are_marked_as_such(sign_in: SignIn, reader: User, build: Build) -> None:
    build("A-1", a("neutrophil"))
    client = sign_in(reader)
    assert "worklist-flag worklist-ai" in client.get(reverse("cases")).content.decode()

    Case.objects.all().update(status="released")
    build("A-2", a("neutrophil", final="neutrophil"))
    page = client.get(reverse("cases"), {"status": "in_review"}).content.decode()
    assert "worklist-flag" in page
    assert "worklist-ai" not in page.split("<tbody>")[1]


def test_case_whose_report_is_being_amended_says_so(sign_in: SignIn, reader: User, build: Build) -> None:
    case = build("A-1", a("monocyte", final="monocyte"))
    client = sign_in(reader)
    assert "being amended" not in client.get(reverse("cases")).content.decode()

    Report.objects.create(
        case=case, version=1, kind="released", payload_json="{}", sha256="0" * 64, signed_by=reader,
        signed_at=timezone.now(),
    )  # fmt: skip
    assert "being amended" in client.get(reverse("cases")).content.decode()


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({}, "The cases of your laboratory will stand here"),
        ({"status": "unread"}, "of which nobody has reviewed anything yet"),
        ({"status": "released"}, "no case in this state"),
        ({"assigned": "me"}, "No case of your laboratory fits"),
    ],
)
def test_empty_list_says_what_would_be_here(
    query: dict[str, str], sentence: str, sign_in: SignIn, reader: User
) -> None:
    assert sentence in sign_in(reader).get(reverse("cases"), query).content.decode()


@pytest.mark.parametrize("who", ["technologist", "reader", "auditor", "lab_admin"])
@pytest.mark.parametrize("count", [1, 25])
def test_queries_of_the_worklist_do_not_grow_with_its_rows(
    count: int, who: str, sign_in: SignIn, build: Build, reader: User, request: pytest.FixtureRequest,
    django_assert_num_queries: Any,
) -> None:  # fmt: skip
    for place in range(count):
        case = build(f"A-{place}", a("monocyte"), a("basophil", final="basophil"), UNSURE)
        services.assign_case(actor=reader, case=case, reader=reader)
    client = sign_in(request.getfixturevalue(who))
    query = {"cell_type": "basophil", "confidence_below": "99", "unidentified": "yes", "assigned": str(reader.pk)}

    # Session, user, people, models, three that find the few images of a rare type (`classifier.few_rows`) and one that
    # finds what waits for a reader, cases, counts, tallies, settings, the laboratory's name, the bell.
    with django_assert_num_queries(14):
        assert len(client.get(reverse("cases"), query).context["rows"]) == count


def test_platform_operator_gets_an_empty_worklist(sign_in: SignIn, operator: User, build: Build) -> None:
    build("A-1")

    response = sign_in(operator).get(reverse("cases"))

    assert response.status_code == 200
    assert response.context["rows"] == []
