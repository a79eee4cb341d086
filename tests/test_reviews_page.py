"""Reviewing by the pages: one form, one small answer, and nobody's word is overwritten unseen."""

import uuid
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import AuditEvent, User
from classifier import services
from classifier.gallery import tiles_of
from classifier.laboratory_settings import start_settings
from classifier.models import Case, CellImage, ModelVersion, Review
from tests.factories import prediction_of

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]
FRAGMENT = {"X-Fragment": "1"}


@pytest.fixture
def lymphocyte(make_image: MakeImage, model_version: ModelVersion) -> CellImage:
    """A cell that the model calls a lymphocyte."""
    image = make_image("classified")
    prediction_of(image, model_version)
    return image


def post(client: Client, image: CellImage, **said: Any) -> Any:
    return client.post(reverse("image-review", args=[image.pk]), said, headers=FRAGMENT)


def current(image: CellImage) -> tuple[str, str] | None:
    image = CellImage.objects.select_related("current_review").get(pk=image.pk)
    return (image.current_review.verdict, image.current_review.final_label) if image.current_review else None


# --- What is said ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "stored"),
    [
        ({"verdict": "CONFIRMED"}, ("CONFIRMED", "lymphocyte")),
        ({"final_label": "lymphocyte"}, ("CONFIRMED", "lymphocyte")),
        ({"final_label": "monocyte"}, ("CORRECTED", "monocyte")),
        ({"verdict": "UNUSABLE"}, ("UNUSABLE", "")),
    ],
)
def test_what_is_pressed_says_which_verdict_it_is(
    said: dict[str, str], stored: tuple[str, str], sign_in: SignIn, technologist: User, lymphocyte: CellImage
) -> None:
    response = post(sign_in(technologist), lymphocyte, **said, previous_review="")

    assert response.status_code == 200
    assert current(lymphocyte) == stored


def test_failed_image_is_read_by_hand_and_keeps_being_so_when_it_is_said_again(
    sign_in: SignIn, technologist: User, make_image: MakeImage
) -> None:
    image = make_image("failed")
    client = sign_in(technologist)

    first = post(client, image, final_label="basophil", previous_review="").json()
    post(client, image, final_label="monocyte", previous_review=first["review"])

    assert current(image) == ("MANUAL", "monocyte")


def test_abstained_image_takes_a_class_and_no_confirmation(
    sign_in: SignIn, technologist: User, make_image: MakeImage, model_version: ModelVersion
) -> None:
    image = make_image("classified")
    prediction_of(image, model_version, label="", abstained=True, reason="The model is not sure.")
    client = sign_in(technologist)

    refused = post(client, image, verdict="CONFIRMED")
    assert (refused.status_code, refused.json()["code"]) == (400, "nothing_to_confirm")
    post(client, image, final_label="lymphocyte")
    assert current(image) == ("CORRECTED", "lymphocyte")


def test_undo_lets_what_counted_before_count_again(sign_in: SignIn, technologist: User, lymphocyte: CellImage) -> None:
    client = sign_in(technologist)
    first = post(client, lymphocyte, verdict="CONFIRMED", previous_review="").json()["review"]
    second = post(client, lymphocyte, final_label="monocyte", previous_review=first).json()["review"]

    answer = post(client, lymphocyte, verdict="WITHDRAWN", previous_review=second).json()
    assert answer["review"] == first
    assert 'data-tray="lymphocyte"' in answer["tile"]
    answer = post(client, lymphocyte, verdict="WITHDRAWN", previous_review=first).json()
    assert answer["review"] is None
    assert current(lymphocyte) is None


@pytest.fixture
def monocyte_by_now(lymphocyte: CellImage) -> CellImage:
    """The same cell after a newer model has called it a monocyte."""
    newer = ModelVersion.objects.create(name="m", version="9.9", sha256="f" * 64, labels=["lymphocyte", "monocyte"])
    prediction_of(lymphocyte, newer, label="monocyte", suggestion="monocyte", conformal_set=["monocyte"])
    return lymphocyte


@pytest.mark.parametrize("seen", ["final_label", "seen_label"])
def test_class_that_the_reader_has_not_seen_is_never_confirmed(
    seen: str, sign_in: SignIn, technologist: User, monocyte_by_now: CellImage
) -> None:
    client = sign_in(technologist)

    refused = post(client, monocyte_by_now, verdict="CONFIRMED", previous_review="", **{seen: "lymphocyte"})
    assert (refused.status_code, refused.json()["code"]) == (409, "prediction_changed")
    assert 'data-says="monocyte"' in refused.json()["tile"]
    assert not Review.objects.exists()

    post(client, monocyte_by_now, verdict="CONFIRMED", previous_review="", **{seen: "monocyte"})
    assert current(monocyte_by_now) == ("CONFIRMED", "monocyte")


def test_form_sends_the_class_that_it_shows(
    sign_in: SignIn, technologist: User, monocyte_by_now: CellImage, lymphocyte: CellImage
) -> None:
    client = sign_in(technologist)
    page = client.get(reverse("image", args=[lymphocyte.pk])).content.decode()
    assert 'name="seen_label" value="monocyte"' in page

    url = reverse("image-review", args=[lymphocyte.pk])
    page = client.post(url, {"verdict": "CONFIRMED", "seen_label": "lymphocyte"}, follow=True).content.decode()
    assert "The model&#x27;s result is not the one that was confirmed" in page
    assert not Review.objects.exists()


# --- The answer ------------------------------------------------------------------------------------------------


def test_one_review_is_one_small_request(
    sign_in: SignIn, technologist: User, lymphocyte: CellImage, django_assert_max_num_queries: Any
) -> None:
    client = sign_in(technologist)

    with django_assert_max_num_queries(22):
        response = post(client, lymphocyte, final_label="immature_granulocyte", previous_review="")

    answer = response.json()
    assert len(response.content) < 2000
    assert answer["review"] == str(Review.objects.get().pk)
    assert answer["case"] == {"status": "in_review", "name": "In review"}
    assert 'data-tray="immature_granulocyte"' in answer["tile"]
    assert "data-mine" in answer["tile"]


def test_review_is_in_the_audit_trail_without_patient_text(
    sign_in: SignIn, technologist: User, lymphocyte: CellImage
) -> None:
    post(sign_in(technologist), lymphocyte, verdict="CONFIRMED")

    event = AuditEvent.objects.get(action="image_reviewed")
    assert event.target_id == str(lymphocyte.pk)
    assert lymphocyte.case.accession_number not in str(event.facts)


def test_answer_that_was_lost_can_be_asked_for_again(
    sign_in: SignIn, technologist: User, lymphocyte: CellImage
) -> None:
    client = sign_in(technologist)

    first, again = (post(client, lymphocyte, verdict="CONFIRMED", previous_review="").json() for _ in range(2))

    assert first["review"] == again["review"]
    assert Review.objects.count() == 1


def test_other_persons_review_is_shown_and_never_overwritten(
    sign_in: SignIn, technologist: User, reader: User, lymphocyte: CellImage
) -> None:
    other = services.review_image(actor=reader, image=lymphocyte, verdict="CORRECTED", final_label="monocyte")

    response = post(sign_in(technologist), lymphocyte, verdict="CONFIRMED", previous_review="")

    answer = response.json()
    assert (response.status_code, answer["code"]) == (409, "review_changed")
    assert answer["review"] == str(other.pk)
    assert "Ruth Reyes has reviewed this image meanwhile" in answer["message"]
    assert "Monocyte" in answer["tile"]
    assert "data-mine" not in answer["tile"]
    assert current(lymphocyte) == ("CORRECTED", "monocyte")


@pytest.mark.parametrize("verdict", ["UNUSABLE", "WITHDRAWN"])
def test_colleague_who_is_as_quick_as_the_answer_is_not_overwritten_unseen(
    verdict: str,
    sign_in: SignIn,
    technologist: User,
    reader: User,
    lymphocyte: CellImage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = sign_in(technologist)
    first = services.review_image(actor=technologist, image=lymphocyte, verdict="CONFIRMED")

    def read_after_the_colleague(images: Any) -> Any:
        services.review_image(actor=reader, image=lymphocyte, verdict="CORRECTED", final_label="basophil")
        return tiles_of(images)

    with monkeypatch.context() as patched:
        patched.setattr("classifier.views.reviews.tiles_of", read_after_the_colleague)
        answer = post(client, lymphocyte, verdict=verdict, previous_review=str(first.pk)).json()
    following = post(client, lymphocyte, final_label="monocyte", previous_review=answer["review"] or "")

    assert "Basophil" in answer["tile"]
    assert following.json()["code"] == "review_changed"
    assert current(lymphocyte) == ("CORRECTED", "basophil")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({}, "final_label_missing"),
        ({"verdict": "GUESSED"}, "unknown_verdict"),
        ({"final_label": "blast"}, "unknown_cell_type"),
        ({"verdict": "CONFIRMED", "previous_review": "x"}, "bad_previous_review"),
        ({"verdict": "WITHDRAWN"}, "nothing_to_withdraw"),
        ({"verdict": "UNUSABLE", "final_label": "monocyte"}, "final_label_not_wanted"),
        ({"final_label": "monocyte", "comment": "x" * 1001}, "comment_too_long"),
    ],
)
def test_bad_request_is_refused_in_a_sentence(
    said: dict[str, str], code: str, sign_in: SignIn, technologist: User, lymphocyte: CellImage
) -> None:
    response = post(sign_in(technologist), lymphocyte, **said)

    assert response.status_code == 400
    assert response.json()["code"] == code
    assert response.json()["message"].endswith(".")
    assert not Review.objects.exists()


@pytest.mark.parametrize(("status", "code"), [("released", "case_released"), ("void", "case_void")])
def test_case_that_is_closed_takes_no_review(
    status: str, code: str, sign_in: SignIn, technologist: User, lymphocyte: CellImage
) -> None:
    Case.objects.filter(pk=lymphocyte.case_id).update(status=status)

    response = post(sign_in(technologist), lymphocyte, verdict="CONFIRMED")

    assert (response.status_code, response.json()["code"]) == (409, code)


# --- Who ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["image-review", "image-void"])
def test_stranger_gets_404_and_nothing_is_written(
    page: str, sign_in: SignIn, stranger: User, lymphocyte: CellImage
) -> None:
    response = sign_in(stranger).post(reverse(page, args=[lymphocyte.pk]), {"verdict": "CONFIRMED", "reason": "x"})

    assert response.status_code == 404
    assert current(lymphocyte) is None


@pytest.mark.parametrize("fragment", [{}, FRAGMENT])
@pytest.mark.parametrize("actor", ["auditor", "lab_admin"])
def test_who_may_only_look_gets_403(
    actor: str, fragment: dict[str, str], sign_in: SignIn, lymphocyte: CellImage, request: pytest.FixtureRequest
) -> None:
    client = sign_in(request.getfixturevalue(actor))

    response = client.post(reverse("image-review", args=[lymphocyte.pk]), {"verdict": "CONFIRMED"}, headers=fragment)

    assert response.status_code == 403
    assert not Review.objects.exists()


def test_signed_out_script_is_told_so_and_nothing_is_written(lymphocyte: CellImage) -> None:
    assert post(Client(), lymphocyte, verdict="CONFIRMED").status_code == 401
    assert not Review.objects.exists()


# --- Without a script ------------------------------------------------------------------------------------------


def test_plain_form_answers_with_the_images_page(sign_in: SignIn, technologist: User, lymphocyte: CellImage) -> None:
    client = sign_in(technologist)

    response = client.post(
        reverse("image-review", args=[lymphocyte.pk]),
        {"final_label": "monocyte", "previous_review": "", "comment": "kidney-shaped nucleus"},
        follow=True,
    )

    page = response.content.decode()
    assert response.redirect_chain == [(reverse("image", args=[lymphocyte.pk]), 302)]
    assert "your class counts now" in page
    assert "Corrected by Tess Tanner" in page
    assert "kidney-shaped nucleus" in page


def test_plain_form_that_is_refused_says_so(sign_in: SignIn, technologist: User, lymphocyte: CellImage) -> None:
    url = reverse("image-review", args=[lymphocyte.pk])

    page = sign_in(technologist).post(url, {"final_label": "blast"}, follow=True).content.decode()

    assert "There is no cell type of that name" in page


def test_form_knows_the_review_that_it_was_made_for(
    sign_in: SignIn, technologist: User, reader: User, lymphocyte: CellImage
) -> None:
    review = services.review_image(actor=reader, image=lymphocyte, verdict="CONFIRMED")

    page = sign_in(technologist).get(reverse("image", args=[lymphocyte.pk])).content.decode()

    assert f'name="previous_review" value="{review.pk}"' in page
    assert "Withdraw RR&#x27;s review" in page or "Withdraw RR's review" in page


@pytest.mark.parametrize("page", ["image-review", "image-void"])
def test_link_to_where_only_forms_go_leads_to_the_image(
    page: str, sign_in: SignIn, technologist: User, lymphocyte: CellImage
) -> None:
    response = sign_in(technologist).get(reverse(page, args=[lymphocyte.pk]))

    assert response["Location"] == reverse("image", args=[lymphocyte.pk])


# --- Void ------------------------------------------------------------------------------------------------------


def test_reader_voids_an_image_with_a_reason(sign_in: SignIn, reader: User, lymphocyte: CellImage) -> None:
    url = reverse("image-void", args=[lymphocyte.pk])

    page = sign_in(reader).post(url, {"reason": "Another patient's slide"}, follow=True).content.decode()

    assert "The image is void" in page
    assert "Another patient&#x27;s slide" in page
    assert "data-review-form" not in page


def test_void_needs_a_reason_and_a_reader(
    sign_in: SignIn, reader: User, technologist: User, lymphocyte: CellImage
) -> None:
    url = reverse("image-void", args=[lymphocyte.pk])

    assert "Say why" in sign_in(reader).post(url, {"reason": " "}, follow=True).content.decode()
    assert sign_in(technologist).post(url, {"reason": "x"}).status_code == 403
    assert not hasattr(CellImage.objects.get(pk=lymphocyte.pk), "void")


# --- The panel -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fragment", [None, "1", "side"])
def test_panel_takes_few_queries(
    fragment: str | None,
    sign_in: SignIn,
    technologist: User,
    reader: User,
    lymphocyte: CellImage,
    django_assert_max_num_queries: Any,
) -> None:
    services.review_image(actor=reader, image=lymphocyte, verdict="UNUSABLE")
    services.review_image(actor=reader, image=lymphocyte, verdict="CONFIRMED")
    client = sign_in(technologist)
    url = reverse("image", args=[lymphocyte.pk])

    with django_assert_max_num_queries(12):
        page = client.get(url, headers={"X-Fragment": fragment} if fragment else {}).content.decode()

    assert page.count("by Ruth Reyes") >= 2
    assert "(counts)" in page


def test_neighbours_lead_through_the_case(sign_in: SignIn, technologist: User, make_image: MakeImage) -> None:
    first, second, third = (make_image() for _ in range(3))
    client = sign_in(technologist)

    page = client.get(reverse("image", args=[second.pk])).content.decode()

    assert f'rel="prev" href="{reverse("image", args=[first.pk])}"' in page
    assert f'rel="next" href="{reverse("image", args=[third.pk])}"' in page
    assert 'rel="prev"' not in client.get(reverse("image", args=[first.pk])).content.decode()


def test_unknown_image_is_a_404(sign_in: SignIn, technologist: User) -> None:
    assert sign_in(technologist).post(reverse("image-review", args=[uuid.uuid4()])).status_code == 404


def test_times_on_the_image_page_are_the_laboratorys(
    sign_in: SignIn, technologist: User, make_image: MakeImage, lab_admin: User
) -> None:
    image = make_image("failed")
    assert lab_admin.laboratory_id
    start = start_settings(lab_admin.laboratory_id)
    services.save_laboratory_settings(
        actor=lab_admin,
        target_count=start.target_count,
        uploader_may_release=start.uploader_may_release,
        abstain_below=start.abstain_below,
        time_zone="Asia/Kathmandu",
        cell_types=start.cell_types,
    )

    page = sign_in(technologist).get(reverse("image", args=[image.pk])).content.decode()

    here = image.uploaded_at.astimezone(ZoneInfo("Asia/Kathmandu"))
    assert f"{here:%H:%M} +0545" in page
