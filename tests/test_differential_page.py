"""The differential as it is shown: on the page's fragment and by the API."""

import re
from collections.abc import Callable
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from accounts.models import Laboratory, User
from classifier import services
from classifier.models import Case, CaseStatus, CellImage, LaboratorySettings, ModelVersion
from classifier.views.differential import differential_context
from tests.factories import image_in_state, prediction_of

SignIn = Callable[[User], Client]
Api = Callable[..., APIClient]
Classified = Callable[..., list[CellImage]]
FRAGMENT = {"X-Fragment": "1"}


@pytest.fixture
def classified(case: Case, technologist: User, model_version: ModelVersion) -> Classified:
    """As many classified images of each type as are asked for; `unidentified` are those that the model abstains on."""

    def make(of: Case = case, **counts: int) -> list[CellImage]:
        made = []
        for label, n in counts.items():
            for _ in range(n):
                image = image_in_state("classified", case=of, uploaded_by=technologist)
                said: dict[str, Any] = {"label": label, "suggestion": label}
                if label == "unidentified":
                    said = {"label": "", "suggestion": "monocyte", "abstained": True, "reason": "not sure"}
                prediction_of(image, model_version, **said)
                made.append(image)
        return made

    return make


def confirm(images: list[CellImage], reader: User) -> None:
    for image in images:
        services.review_image(actor=reader, image=image, verdict="CONFIRMED")


def fragment(client: Client, case: Case, query: str = "") -> str:
    answer = client.get(reverse("case-differential", args=[case.pk]) + query, headers=FRAGMENT)
    assert answer.status_code == 200
    return unescape(answer.content.decode())


def words(html: str) -> str:
    """What a person reads: without tags, one space between words."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).replace(" .", ".").replace(" ,", ",")


# --- Who sees it -------------------------------------------------------------------------------------------------


def test_stranger_gets_404_for_the_differential_on_page_and_api(
    case: Case, stranger: User, operator: User, sign_in: SignIn, api: Api
) -> None:
    for user in (stranger, operator):
        page = sign_in(user).get(reverse("case-differential", args=[case.pk]), headers=FRAGMENT)
        assert page.status_code == 404
    answer = api(stranger).get(reverse("api-case-differential", args=[case.pk]))
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("role", ["technologist", "reader", "auditor", "lab_admin"])
def test_every_role_of_the_laboratory_sees_the_differential(
    role: str, case: Case, sign_in: SignIn, api: Api, request: pytest.FixtureRequest
) -> None:
    user = request.getfixturevalue(role)

    assert "Differential" in fragment(sign_in(user), case)
    assert api(user).get(reverse("api-case-differential", args=[case.pk])).status_code == 200


def test_api_wants_a_token_that_may_read(case: Case, api: Api, service_account: User) -> None:
    url = reverse("api-case-differential", args=[case.pk])

    assert api(None).get(url).status_code == 401
    assert api(service_account, ("upload",)).get(url).status_code == 403
    assert api(service_account, ("read",)).get(url).status_code == 200


def test_differential_is_only_read(case: Case, api: Api, reader: User, sign_in: SignIn) -> None:
    assert api(reader).post(reverse("api-case-differential", args=[case.pk])).status_code == 405
    assert sign_in(reader).post(reverse("case-differential", args=[case.pk])).status_code == 405


def test_person_who_opens_the_fragment_is_sent_to_the_case(case: Case, reader: User, sign_in: SignIn) -> None:
    answer = sign_in(reader).get(reverse("case-differential", args=[case.pk]))

    assert (answer.status_code, answer["Location"]) == (302, reverse("case", args=[case.pk]))


# --- What it costs -----------------------------------------------------------------------------------------------


def test_fragment_costs_six_queries_however_many_images(
    case: Case, classified: Classified, technologist: User, sign_in: SignIn, django_assert_num_queries: Any
) -> None:
    """Session, user, case, settings, tally, and the model whose card corrects the shares."""
    client = sign_in(technologist)
    classified(neutrophil=1)
    with django_assert_num_queries(6):
        fragment(client, case)
    classified(neutrophil=5, lymphocyte=4, unidentified=2, erythroblast=1)
    with django_assert_num_queries(6):
        fragment(client, case)


def test_fragment_of_a_case_under_review_costs_five_queries(
    case: Case, classified: Classified, reader: User, sign_in: SignIn, django_assert_num_queries: Any
) -> None:
    confirm(classified(neutrophil=2, lymphocyte=2)[:2], reader)
    client = sign_in(reader)
    with django_assert_num_queries(5):
        fragment(client, case)


def test_api_costs_a_fixed_number_of_queries(
    case: Case, classified: Classified, reader: User, api: Api, django_assert_max_num_queries: Any
) -> None:
    classified(neutrophil=3, lymphocyte=2)
    client = api(reader)
    url = reverse("api-case-differential", args=[case.pk])
    with django_assert_max_num_queries(7):
        assert client.get(url).status_code == 200


def test_fragment_does_not_look_for_earlier_cases(technologist: User, sign_in: SignIn) -> None:
    for number in ("A-1", "A-2"):
        case = services.open_case(actor=technologist, accession_number=number, patient_pseudonym="P-7")

    assert "A-1" not in fragment(sign_in(technologist), case)


# --- What it says ------------------------------------------------------------------------------------------------


def test_unreviewed_shares_stand_beside_the_words_that_say_so(
    case: Case, classified: Classified, reader: User, sign_in: SignIn
) -> None:
    classified(neutrophil=3, lymphocyte=1)
    text = words(fragment(sign_in(reader), case))

    assert "4 of 100 leukocytes" in text
    assert "Pre-classified : AI suggestion - not verified. For trained reviewers; not for diagnosis." in text
    assert "The limits cover the sampling of cells only, never misclassification." in text


def test_mixed_shares_say_how_many_are_which(case: Case, classified: Classified, reader: User, sign_in: SignIn) -> None:
    confirm(classified(neutrophil=3, lymphocyte=1)[:3], reader)
    text = words(fragment(sign_in(reader), case))

    assert "Mixed : 3 reviewed and 1 pre-classified cells counted together." in text
    assert "AI suggestion - not verified" in text


def test_reviewed_shares_carry_no_ai_note(case: Case, classified: Classified, reader: User, sign_in: SignIn) -> None:
    confirm(classified(neutrophil=3, lymphocyte=1), reader)
    text = words(fragment(sign_in(reader), case))

    assert "Reviewed : a person has named every cell that is counted." in text
    assert "not verified" not in text
    assert "Estimate" not in text


def test_row_has_count_share_limits_range_flag_and_absolute_count(
    technologist: User, classified: Classified, sign_in: SignIn
) -> None:
    case = services.open_case(
        actor=technologist, accession_number="A-2001", wbc_value=Decimal("8.00"), wbc_source="analyser XN-1"
    )
    classified(case, neutrophil=3, lymphocyte=1)
    html = fragment(sign_in(technologist), case)
    row = words(html.split("Neutrophil", 1)[1].split("</tr>", 1)[0])

    assert re.search(r"3 H 75\.0 19\.4 - 99\.4 50 - 70 6\.00 1\.55 - 7\.95", row)
    assert 'title="above the reference range"' in html
    assert "an analyser's WBC of 8 x 10 9 /L (analyser XN-1)" in words(html)


def test_what_is_outside_the_leukocytes_stands_apart(
    case: Case, classified: Classified, reader: User, sign_in: SignIn
) -> None:
    images = classified(neutrophil=4, erythroblast=1, platelet=2, unidentified=3)
    services.review_image(actor=reader, image=images[5], verdict="UNUSABLE")
    text = words(fragment(sign_in(reader), case))

    assert "4 of 100 leukocytes" in text
    assert "Erythroblast 1 25.0 per 100 WBC" in text
    assert "Platelet 1 Unidentified 3 Unusable 1" in text
    assert "Not among the leukocytes." in text


def test_every_blocker_links_to_the_cells_that_block(
    case: Case, classified: Classified, reader: User, sign_in: SignIn, technologist: User
) -> None:
    classified(neutrophil=2, unidentified=1)
    image_in_state("failed", case=case, uploaded_by=technologist)
    html = fragment(sign_in(reader), case)

    for code in ("failed", "unidentified", "unreviewed", "below_target_count"):
        assert f'href="{reverse("case", args=[case.pk])}?show={code}"' in html
    assert "1 image is unidentified: say what each one is." in html


def test_released_case_shows_no_blockers(case: Case, classified: Classified, reader: User, sign_in: SignIn) -> None:
    classified(neutrophil=2)
    Case.objects.filter(pk=case.pk).update(status=CaseStatus.RELEASED)

    assert "Before release" not in fragment(sign_in(reader), case)


def test_case_without_images_says_what_to_do(case: Case, technologist: User, sign_in: SignIn) -> None:
    html = fragment(sign_in(technologist), case)

    assert "The case has no images yet. Upload some." in html
    assert "share-chart" not in html
    assert "How many more" not in html


def test_page_waits_for_what_is_queued_and_only_then(
    case: Case, classified: Classified, technologist: User, sign_in: SignIn
) -> None:
    client = sign_in(technologist)
    classified(neutrophil=1)
    assert "data-growing" not in fragment(client, case)
    image_in_state("queued", case=case, uploaded_by=technologist)
    assert "data-growing" in fragment(client, case)


def test_range_of_the_laboratory_is_the_one_that_is_shown_and_flagged(
    case: Case, classified: Classified, laboratory: Laboratory, reader: User, sign_in: SignIn
) -> None:
    own = [{"slug": "neutrophil", "range_low": None, "range_high": 80.5, "loinc": ""}]
    LaboratorySettings.objects.create(laboratory=laboratory, version=1, target_count=4, cell_types=own)
    classified(neutrophil=3, lymphocyte=1)
    text = words(fragment(sign_in(reader), case))

    assert "4 of 4 leukocytes" in text
    assert re.search(r"Neutrophil 3 75\.0 19\.4 - 99\.4 up to 80\.50? ", text)


# --- How many more -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "width"), [("", 10), ("?width=5", 5), ("?width=20", 20), ("?width=7", 10), ("?width=x", 10)]
)
def test_width_is_chosen_by_the_address_and_nothing_else_is_taken(
    query: str, width: int, case: Case, classified: Classified, reader: User, sign_in: SignIn
) -> None:
    classified(neutrophil=3, lymphocyte=1)
    html = fragment(sign_in(reader), case, query)

    assert f'data-width="{width}" aria-current="true"' in html
    assert html.count('aria-current="true"') == 1


def test_wider_limits_need_fewer_cells(case: Case, classified: Classified, reader: User, sign_in: SignIn) -> None:
    classified(neutrophil=3, lymphocyte=1)
    needed = []
    for width in (10, 15, 20):
        text = words(fragment(sign_in(reader), case, f"?width={width}"))
        found = re.search(r"About ([\d,]+) more leukocytes, ([\d,]+) in all", text)
        assert found
        more, total = (int(number.replace(",", "")) for number in found.groups())
        assert total == more + 4
        needed.append(more)

    assert needed == sorted(needed, reverse=True)
    assert needed[-1] > 0


# --- The estimate ------------------------------------------------------------------------------------------------


def test_estimate_is_called_one_and_names_its_data_set(
    case: Case, classified: Classified, reader: User, sign_in: SignIn, model_version: ModelVersion
) -> None:
    classified(neutrophil=6, lymphocyte=3, monocyte=1)
    text = words(fragment(sign_in(reader), case))

    assert "Estimate corrected for the model's known mistakes" in text
    assert "An estimate, not a count" in text
    cells = model_version.metrics["raabin_held_out_slides"]["n"]
    assert f"{model_version} mistook these cells as it mistook those of Raabin, held-out slides ({cells} cells)" in text


def test_cells_of_two_models_get_no_estimate(
    case: Case, classified: Classified, model_version: ModelVersion, reader: User
) -> None:
    images = classified(neutrophil=6, lymphocyte=3)
    newer = ModelVersion.objects.create(
        name="other",
        version="2",
        sha256="1" * 64,
        labels=model_version.labels,
        preprocessing_version="1",
        metrics=model_version.metrics,
    )
    assert differential_context(case, reader)["estimate"] is not None
    prediction_of(images[0], newer, label="neutrophil")

    assert differential_context(case, reader)["estimate"] is None


def test_model_whose_card_has_no_matrix_gives_no_estimate(case: Case, classified: Classified, reader: User) -> None:
    classified(neutrophil=6, lymphocyte=3)
    ModelVersion.objects.update(metrics={})

    assert differential_context(case, reader)["estimate"] is None


# --- The API -----------------------------------------------------------------------------------------------------


def test_api_gives_the_contracts_shape_with_numbers(
    technologist: User, classified: Classified, api: Api, reader: User
) -> None:
    case = services.open_case(
        actor=technologist, accession_number="A-9", wbc_value=Decimal("5.50"), wbc_source="analyser"
    )
    confirm(classified(case, neutrophil=2, erythroblast=1)[:1], reader)
    classified(case, band_neutrophil=1, lymphocyte=1, unidentified=1)

    body = api(reader).get(reverse("api-case-differential", args=[case.pk])).json()

    assert (body["n"], body["basis"], body["wbc"], body["unidentified"]) == (4, "mixed", 5.5, 1)
    assert body["cells"][0] == {
        "label": "neutrophil",
        "n": 3,
        "reviewed": 1,
        "pre_classified": 2,
        "percent": 75.0,
        "low": 19.412,
        "high": 99.3691,
        "range_low": 50.0,
        "range_high": 70.0,
        "flag": "H",
        "absolute": {"value": 4.125, "low": 1.0677, "high": 5.4653},
    }
    assert body["outside"] == [{"label": "erythroblast", "n": 1, "per_100_wbc": 25.0}]
    assert [(blocker["code"], blocker["count"]) for blocker in body["blocked_by"]] == [
        ("unidentified", 1),
        ("unreviewed", 4),
        ("below_target_count", 96),
    ]


def test_page_and_api_show_the_same_numbers(
    case: Case, classified: Classified, api: Api, reader: User, sign_in: SignIn
) -> None:
    classified(neutrophil=5, lymphocyte=2, monocyte=1)
    body = api(reader).get(reverse("api-case-differential", args=[case.pk])).json()
    text = words(fragment(sign_in(reader), case))

    for cell in body["cells"]:
        assert f"{cell['percent']:.1f} {cell['low']:.1f} - {cell['high']:.1f}" in text


def test_schema_describes_the_differential(api: Api, reader: User) -> None:
    schema = api(reader).get(reverse("api-schema"), HTTP_ACCEPT="application/json").json()
    answer = schema["paths"]["/api/v1/cases/{case_id}/differential/"]["get"]["responses"]["200"]

    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/Differential")
    assert set(schema["components"]["schemas"]["Differential"]["properties"]) >= {
        "n",
        "basis",
        "cells",
        "outside",
        "blocked_by",
    }
