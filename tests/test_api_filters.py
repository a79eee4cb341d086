"""Lists, what they can be narrowed by, entity tags, and what a client can do that a person can do on the pages."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from unittest.mock import ANY

import pytest
from rest_framework.test import APIClient

from accounts.models import User
from classifier import services
from classifier.models import Case, CellImage, ModelVersion
from classifier.services import review_image
from tests.factories import prediction_of

Api = Callable[..., APIClient]
MakeImage = Callable[..., CellImage]


def ids(response: Any) -> list[str]:
    assert response.status_code == 200, response.content
    return [row["id"] for row in response.json()["results"]]


# --- Lists of cases --------------------------------------------------------------------------------------------


def test_cases_are_narrowed_by_status_day_and_reader(api: Api, technologist: User, reader: User) -> None:
    old, mine, open_one, void = (services.open_case(actor=technologist) for _ in range(4))
    Case.objects.filter(pk=old.pk).update(opened_at=datetime(2025, 3, 1, 23, 59, tzinfo=UTC))
    services.assign_case(actor=technologist, case=mine, reader=reader)
    services.void_case(actor=reader, case=void, reason="Wrong tube.")
    client = api(reader)

    def found(query: str) -> set[str]:
        return set(ids(client.get(f"/api/v1/cases/?{query}")))

    assert found("") == {str(case.pk) for case in (old, mine, open_one, void)}
    assert found("status=void") == {str(void.pk)}
    assert found("opened_to=2025-03-01") == {str(old.pk)}
    assert found("opened_to=2025-02-28") == set()
    assert found("opened_from=2025-03-01&opened_to=2025-03-01") == {str(old.pk)}
    assert found("opened_from=2025-03-02&status=open") == {str(mine.pk), str(open_one.pk)}
    assert found("assigned=me") == found(f"assigned={reader.pk}") == {str(mine.pk)}
    assert found("assigned=nobody&status=open") == {str(old.pk), str(open_one.pk)}


def test_pages_keep_their_filter(api: Api, technologist: User, reader: User) -> None:
    wanted = [services.open_case(actor=technologist) for _ in range(3)]
    services.void_case(actor=reader, case=services.open_case(actor=technologist), reason="Wrong tube.")
    client, seen = api(reader), []

    url = "/api/v1/cases/?status=open&page_size=2"
    while url:
        page = client.get(url)
        seen += ids(page)
        url = page.json()["next"]

    assert seen == [str(case.pk) for case in reversed(wanted)]


@pytest.mark.parametrize(
    ("query", "code", "word"),
    [
        ("stauts=open", "unknown_filter", "stauts"),
        ("accession_number=A-1001", "unknown_filter", "/api/v1/cases/search/"),
        ("status=open&status=void", "repeated_filter", "status"),
        ("status=closed", "invalid_input", "status"),
        ("opened_from=yesterday", "invalid_input", "opened_from"),
        ("opened_from=0001-01-01", "invalid_input", "opened_from"),
        ("opened_to=9999-12-31", "invalid_input", "opened_to"),
        ("assigned=somebody", "invalid_input", "assigned"),
        ("page_size=0", "invalid_input", "page_size"),
        ("page_size=many", "invalid_input", "page_size"),
    ],
)
def test_filter_that_can_not_be_is_refused_and_named(api: Api, reader: User, query: str, code: str, word: str) -> None:
    response = api(reader).get(f"/api/v1/cases/?{query}")

    assert (response.status_code, response.json()["code"]) == (400, code)
    assert word in response.json()["detail"]
    assert "A-1001" not in response.json()["detail"]


def test_page_is_never_larger_than_two_hundred(api: Api, reader: User) -> None:
    assert api(reader).get("/api/v1/cases/?page_size=100000").status_code == 200


def test_case_is_found_by_its_accession_number_in_the_body(
    api: Api, case: Case, reader: User, stranger: User, caplog: pytest.LogCaptureFixture
) -> None:
    search = "/api/v1/cases/search/"

    found = api(reader).post(search, {"accession_number": case.accession_number.lower()}).json()

    assert found == {"next": None, "previous": None, "results": [ANY]}
    assert found["results"][0]["id"] == str(case.pk)
    assert api(reader).post(search, {"accession_number": case.accession_number[:-1]}).json()["results"] == []
    assert api(stranger).post(search, {"accession_number": case.accession_number}).json()["results"] == []
    assert api(reader).post(search, {}).status_code == 400
    assert case.accession_number.lower() not in caplog.text.lower()


# --- Lists of images -------------------------------------------------------------------------------------------


@pytest.fixture
def images(make_image: MakeImage, model_version: ModelVersion, technologist: User) -> dict[str, str]:
    """Ids by what they are for: what the model says, what people say, and how far they are."""
    made = {name: make_image("classified") for name in ("lymphocyte", "basophil", "unsure", "corrected")}
    for name in ("lymphocyte", "corrected"):
        prediction_of(made[name], model_version)
    prediction_of(made["basophil"], model_version, label="basophil", suggestion="basophil")
    prediction_of(
        made["unsure"], model_version, label="", abstained=True, reason_code="not_sure", reason="The model is not sure."
    )
    review_image(actor=technologist, image=made["corrected"], verdict="CORRECTED", final_label="monocyte")
    made |= {"queued": make_image("queued"), "failed": make_image("failed")}
    return {name: str(image.pk) for name, image in made.items()}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("status=queued", {"queued"}),
        ("status=reviewed", {"corrected"}),
        ("status=failed", {"failed"}),
        ("label=lymphocyte", {"lymphocyte"}),
        ("label=monocyte", {"corrected"}),
        ("label=platelet", set()),
        ("abstained=true", {"unsure"}),
        ("abstained=false", {"lymphocyte", "basophil", "corrected"}),
        ("abstained=false&status=classified&label=basophil", {"basophil"}),
        ("", {"lymphocyte", "basophil", "unsure", "corrected", "queued", "failed"}),
    ],
)
def test_images_are_narrowed_by_state_and_class(
    api: Api, reader: User, case: Case, images: dict[str, str], query: str, expected: set[str]
) -> None:
    client = api(reader)
    wanted = {images[name] for name in expected}

    assert set(ids(client.get(f"/api/v1/images/?{query}"))) == wanted
    assert set(ids(client.get(f"/api/v1/cases/{case.pk}/images/?{query}"))) == wanted


def test_images_of_all_cases_are_narrowed_by_case(api: Api, technologist: User, make_image: MakeImage) -> None:
    here, other = make_image(), make_image(case=services.open_case(actor=technologist))
    client = api(technologist)

    assert ids(client.get(f"/api/v1/images/?case={other.case_id}")) == [str(other.pk)]
    assert set(ids(client.get("/api/v1/images/"))) == {str(here.pk), str(other.pk)}


@pytest.mark.parametrize("query", ["label=blast", "status=done", "abstained=perhaps", "case=nonsense", "batch=7"])
def test_image_filter_that_can_not_be_is_refused(api: Api, reader: User, query: str) -> None:
    response = api(reader).get(f"/api/v1/images/?{query}")

    assert (response.status_code, response.json()["code"]) == (400, "invalid_input")


@pytest.mark.parametrize("count", [1, 12])
@pytest.mark.parametrize("url", ["/api/v1/images/", "/api/v1/images/?label=lymphocyte", "/api/v1/cases/"])
def test_list_costs_the_same_however_many_rows_it_has(
    count: int,
    url: str,
    api: Api,
    technologist: User,
    make_image: MakeImage,
    model_version: ModelVersion,
    django_assert_num_queries: Any,
) -> None:
    for _ in range(count):
        case = services.open_case(actor=technologist)
        services.assign_case(actor=technologist, case=case, reader=technologist)
        prediction_of(make_image("classified", case=case), model_version)
    client = api(technologist)
    client.get(url)

    rows = (Case if "cases" in url else CellImage).objects.count()

    # Token with its owner, the page; and the predictions of images, which are read in one go. Whether a label is rare
    # is asked of reviews and of predictions.
    with django_assert_num_queries(2 if "cases" in url else 5 if "label" in url else 3):
        assert len(ids(client.get(url))) == rows
