"""The case page: every cell in the tray where it belongs, what needs a person first, and what has changed since."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from classifier import gallery, services
from classifier.gallery import Gallery, gallery_of, keys_of
from classifier.laboratory_settings import settings_of
from classifier.models import Case, CellImage, ModelVersion
from tests.conftest import PASSWORD
from tests.factories import prediction_of
from tests.signing import ready_to_sign, settings_row

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]
FRAGMENT = {"X-Fragment": "1"}
ABSTAINED = {"label": "", "abstained": True, "reason_code": "not_sure", "reason": "The model is not sure."}


@pytest.fixture
def classified(make_image: MakeImage, model_version: ModelVersion) -> Callable[..., CellImage]:
    """A classified image with a prediction: a lymphocyte with 92 %, unless the fields say otherwise."""

    def make(**prediction: Any) -> CellImage:
        image = make_image("classified")
        prediction_of(image, model_version, **prediction)
        return image

    return make


def shown(case: Case, **how: Any) -> Gallery:
    return gallery_of(case, keys_of(settings_of(case.laboratory_id)), **how)


def trays(case: Case, **how: Any) -> dict[str, list[Any]]:
    return {tray.key: [tile.id for tile in tray.tiles] for tray in shown(case, **how).trays if tray.total}


def many(case: Case, uploader: User, version: ModelVersion, count: int, *, reviewed: int = 0) -> None:
    """Classified images without files, some of them reviewed: as rows only, to be many at little cost."""
    now, labels = timezone.now(), list(version.labels)
    images = CellImage.objects.bulk_create(
        CellImage(
            case=case,
            file=f"originals/x/{place}.jpg",
            original_name=f"{place}.jpg",
            received_sha256=f"{place:064x}",
            stored_sha256=f"{place:064x}",
            pixels_sha256=f"{place:064x}",
            stored_bytes=1000,
            width=360,
            height=363,
            uploaded_by=uploader,
            queued_at=now,
            classified_at=now,
            status="classified",
            has_thumbnail=True,
        )
        for place in range(count)
    )
    for place, image in enumerate(images):
        label = labels[place % len(labels)]
        conformal_set = [label] if place % 7 else [label, labels[(place + 1) % len(labels)]]
        prediction_of(image, version, label=label, suggestion=label, conformal_set=conformal_set, box=None)
    for image in images[:reviewed]:
        services.review_image(actor=uploader, image=image, verdict="CONFIRMED")


# --- Trays -----------------------------------------------------------------------------------------------------


def test_what_needs_a_person_comes_first_then_the_rare_types_then_the_common_ones(case: Case) -> None:
    keys = [tray.key for tray in shown(case).trays]

    assert keys[:4] == ["unidentified", "failed", "waiting", "doubtful"]
    assert keys.index("immature_granulocyte") < keys.index("neutrophil")
    assert keys.index("erythroblast") < keys.index("neutrophil")
    assert keys.index("basophil") < keys.index("neutrophil") < keys.index("platelet")
    assert keys[-2:] == ["unusable", "void"]


@pytest.mark.parametrize(
    ("said", "tray"),
    [
        ({"confidence": 0.92}, "lymphocyte"),
        ({"confidence": 0.79}, "doubtful"),
        ({"confidence": 0.92, "conformal_set": ["lymphocyte", "monocyte"]}, "doubtful"),
        (ABSTAINED, "unidentified"),
        ({"label": "basophil", "suggestion": "basophil", "conformal_set": ["basophil"]}, "basophil"),
    ],
)
def test_classified_cell_lies_where_the_models_certainty_puts_it(
    said: dict[str, Any], tray: str, classified: MakeImage
) -> None:
    image = classified(**said)

    assert trays(image.case) == {tray: [image.pk]}


@pytest.mark.parametrize("status", ["queued", "claimed"])
def test_image_that_waits_lies_in_the_tray_of_those(status: str, make_image: MakeImage) -> None:
    image = make_image(status)

    assert trays(image.case) == {"waiting": [image.pk]}


def test_reviewed_cell_lies_in_the_tray_of_its_final_label(classified: MakeImage, reader: User) -> None:
    corrected, unusable = classified(**ABSTAINED), classified()
    services.review_image(actor=reader, image=corrected, verdict="CORRECTED", final_label="monocyte")
    services.review_image(actor=reader, image=unusable, verdict="UNUSABLE")

    assert trays(corrected.case) == {"monocyte": [corrected.pk], "unusable": [unusable.pk]}


def test_void_image_lies_in_the_last_tray_and_counts_nowhere(classified: MakeImage, reader: User) -> None:
    image, other = classified(), classified()
    services.void_image(actor=reader, image=image, reason="Wrong patient")

    found = shown(image.case)
    assert [tile.id for tile in found.trays[-1].tiles] == [image.pk]
    assert found.trays[-1].tiles[0].void_reason == "Wrong patient"
    assert found.images == 1
    assert other.pk in trays(image.case)["lymphocyte"]


def test_least_confident_comes_first_in_a_tray(classified: MakeImage) -> None:
    images = [classified(confidence=confidence) for confidence in (0.95, 0.85, 0.99)]

    assert trays(images[0].case) == {"lymphocyte": [images[1].pk, images[0].pk, images[2].pk]}


def test_newest_prediction_is_the_one_that_is_shown(
    make_image: MakeImage, model_version: ModelVersion, case: Case
) -> None:
    image = make_image("classified")
    older = ModelVersion.objects.create(name="m", version="0", sha256="0", labels=model_version.labels)
    prediction_of(image, older, label="monocyte", suggestion="monocyte", conformal_set=["monocyte"])
    prediction_of(image, model_version)

    assert trays(case) == {"lymphocyte": [image.pk]}


@pytest.mark.parametrize("show", ["unreviewed", "unidentified", "failed", "queued"])
def test_filter_shows_exactly_what_blocks_the_release_in_that_way(
    show: str, classified: MakeImage, make_image: MakeImage, reader: User, case: Case
) -> None:
    images = {
        "unreviewed": classified(),
        "unidentified": classified(**ABSTAINED),
        "failed": make_image("failed"),
        "queued": make_image("queued"),
    }
    services.review_image(actor=reader, image=classified(), verdict="CONFIRMED")

    assert [tile for tiles in trays(case, show=show).values() for tile in tiles] == [images[show].pk]


def test_large_case_shows_the_first_of_each_tray_and_a_tray_of_its_own_in_pages(
    classified: MakeImage, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "TILES_ON_PAGE", 4)
    monkeypatch.setattr(gallery, "TILES_IN_FOLDED_TRAY", 2)
    images = [classified(confidence=0.9 + place / 100) for place in range(5)]

    folded = next(tray for tray in shown(case).trays if tray.key == "lymphocyte")
    assert (len(folded.tiles), folded.total, folded.is_folded) == (2, 5, True)
    assert (shown(case).found, shown(case).shown) == (5, 2)
    assert trays(case, tray="lymphocyte") == {"lymphocyte": [image.pk for image in images[:4]]}
    assert trays(case, tray="lymphocyte", page=2) == {"lymphocyte": [images[4].pk]}
    assert shown(case, tray="lymphocyte").pages == 2


# --- The page --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reviewed", [0, 40, 200])
def test_case_of_two_hundred_cells_is_one_small_page_in_few_queries(
    reviewed: int,
    sign_in: SignIn,
    technologist: User,
    case: Case,
    model_version: ModelVersion,
    django_assert_max_num_queries: Any,
) -> None:
    many(case, technologist, model_version, 200, reviewed=reviewed)
    client = sign_in(technologist)
    url = reverse("case", args=[case.pk])
    client.get(url)

    # One of them notes the look in the audit trail.
    with django_assert_max_num_queries(13):
        page = client.get(url).content

    assert page.count(b'class="tile') >= 200
    assert len(page) < 300_000


def test_case_of_five_thousand_cells_stays_a_page_that_can_be_used(
    sign_in: SignIn, technologist: User, case: Case, monkeypatch: pytest.MonkeyPatch, model_version: ModelVersion
) -> None:
    monkeypatch.setattr(gallery, "TILES_ON_PAGE", 100)
    many(case, technologist, model_version, 400)

    page = sign_in(technologist).get(reverse("case", args=[case.pk])).content.decode()

    assert page.count('<li class="tile') == gallery.TILES_IN_FOLDED_TRAY * (
        sum(tray.total > 0 for tray in shown(case).trays)
    )
    assert "?tray=neutrophil" in page


def test_every_picture_has_its_size_and_is_loaded_only_when_it_is_seen(
    sign_in: SignIn, technologist: User, classified: MakeImage
) -> None:
    page = sign_in(technologist).get(reverse("case", args=[classified().case_id])).content.decode()

    pictures = re.findall(r"<img [^>]*(?:/file/|/thumbnail/)[^>]*>", page)
    assert pictures
    assert all('width="96" height="96"' in picture and 'loading="lazy"' in picture for picture in pictures)


def test_person_and_model_never_look_alike(sign_in: SignIn, reader: User, classified: MakeImage) -> None:
    image, other = classified(), classified(conformal_set=["lymphocyte", "monocyte"])
    services.review_image(actor=reader, image=image, verdict="CORRECTED", final_label="basophil")

    page = sign_in(reader).get(reverse("case", args=[image.case_id])).content.decode()

    assert re.search(r'class="chip by-person cell-basophil">.*?Basophil.*?>RR</abbr>', page)
    assert "AI: lymphocyte 92.0 %" in page
    assert "or monocyte" in page
    assert other.pk


def test_history_says_who_reviewed_how_many(sign_in: SignIn, reader: User, classified: MakeImage) -> None:
    images = [classified() for _ in range(3)]
    for image in images[:2]:
        services.review_image(actor=reader, image=image, verdict="CONFIRMED")
    services.review_image(actor=reader, image=images[2], verdict="UNUSABLE")
    services.void_image(actor=reader, image=images[2], reason="Another slide")

    page = sign_in(reader).get(reverse("case", args=[images[0].case_id])).content.decode()

    assert "<strong>Ruth Reyes</strong> reviewed: 2 confirmed, 1 unusable" in page
    assert "<strong>Ruth Reyes</strong> voided an image: Another slide" in page
    assert "opened the case" in page


def test_signed_case_leads_to_its_report_from_its_head_and_from_its_history(
    sign_in: SignIn, reader: User, technologist: User, case: Case, model_version: ModelVersion
) -> None:
    ready_to_sign(case, technologist=technologist, model_version=model_version)
    services.release_report(actor=reader, case=case, password=PASSWORD)

    page = sign_in(reader).get(reverse("case", args=[case.pk])).content.decode()

    address = reverse("report", args=[case.pk, 1])
    assert f'<a class="button primary" href="{address}">Report</a>' in page
    assert f'(<a href="{address}">report</a>)' in page
    assert f'href="{reverse("case-amend", args=[case.pk])}"' in page


def test_times_are_those_of_the_laboratory_and_name_their_zone(
    sign_in: SignIn, reader: User, classified: MakeImage
) -> None:
    image = classified()
    settings_row(image.case.laboratory, time_zone="Asia/Kolkata")
    client = sign_in(reader)
    tile = client.post(reverse("image-review", args=[image.pk]), {"verdict": "UNUSABLE"}, headers=FRAGMENT)
    local = time_in_kolkata(image)

    page = client.get(reverse("case", args=[image.case_id])).content.decode()
    tiles = client.get(reverse("case-tiles", args=[image.case_id]), {"id": str(image.pk)}).content.decode()

    for drawn in (page, tiles, tile.json()["tile"]):
        assert f'title="{local:%-d %b %Y, %H:%M} IST">{local:%H:%M}</time>' in drawn


def time_in_kolkata(image: CellImage) -> datetime:
    return image.reviews.get().created_at.astimezone(ZoneInfo("Asia/Kolkata"))


@pytest.mark.parametrize(
    "query", ["?show=nonsense", "?tray=nonsense", "?page=-1", "?page=999999999", "?tray=void&page=7"]
)
def test_address_that_asks_for_nothing_known_shows_the_case(
    query: str, sign_in: SignIn, reader: User, classified: MakeImage
) -> None:
    image = classified()

    assert sign_in(reader).get(reverse("case", args=[image.case_id]) + query).status_code == 200


def test_void_case_says_why(sign_in: SignIn, reader: User, classified: MakeImage) -> None:
    image = classified()
    services.void_case(actor=reader, case=image.case, reason="Entered for the wrong patient")

    page = sign_in(reader).get(reverse("case", args=[image.case_id])).content.decode()

    assert "Entered for the wrong patient" in page
    assert "data-may-review" not in page


@pytest.mark.parametrize(("actor", "may"), [("technologist", True), ("reader", True), ("auditor", False)])
def test_only_who_may_review_is_offered_it(
    actor: str, may: bool, sign_in: SignIn, classified: MakeImage, request: pytest.FixtureRequest
) -> None:
    image = classified()
    client = sign_in(request.getfixturevalue(actor))

    assert ("data-may-review" in client.get(reverse("case", args=[image.case_id])).content.decode()) is may
    assert ("data-review-form" in client.get(reverse("image", args=[image.pk])).content.decode()) is may


# --- Changes ---------------------------------------------------------------------------------------------------


def changes(client: Client, case: Case, cursor: str) -> Any:
    return client.get(reverse("case-changes", args=[case.pk]), {"since": cursor}, headers=FRAGMENT).json()


@pytest.fixture
def an_hour_ago(classified: MakeImage, make_image: MakeImage) -> list[CellImage]:
    """Images that nothing has happened to for an hour: a classified one, a failed one, a reviewed one."""
    images = [classified(), make_image("failed"), make_image("reviewed")]
    past = timezone.now() - timedelta(hours=1)
    CellImage.objects.update(uploaded_at=past, queued_at=past)
    CellImage.objects.exclude(classified_at=None).update(classified_at=past)
    return images


@pytest.fixture
def no_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "OVERLAP", timedelta(0))


@pytest.mark.usefixtures("no_overlap")
@pytest.mark.parametrize("event", ["nothing", "review", "void", "claim", "fail", "upload", "requeue"])
def test_page_learns_what_others_did_since_it_was_drawn(
    event: str,
    sign_in: SignIn,
    reader: User,
    technologist: User,
    an_hour_ago: list[CellImage],
    make_image: MakeImage,
    case: Case,
    model_version: ModelVersion,
) -> None:
    classified_one, failed, _ = an_hour_ago
    client = sign_in(technologist)
    page = client.get(reverse("case", args=[case.pk])).content.decode()
    cursor = re.search(r'data-cursor="([^"]+)"', page)
    assert cursor
    expected = set()
    if event == "review":
        services.review_image(actor=reader, image=classified_one, verdict="CONFIRMED")
        expected = {classified_one.pk}
    elif event == "void":
        services.void_image(actor=reader, image=classified_one, reason="Wrong patient")
        expected = {classified_one.pk}
    elif event == "claim":
        services.requeue_image(actor=reader, image=failed)
        token = {"claim_token": "0" * 32, "claim_expires_at": timezone.now(), "status": "claimed"}
        CellImage.objects.filter(pk=failed.pk).update(**token, queued_at=timezone.now() - timedelta(hours=1))
        expected = {failed.pk}
    elif event == "fail":
        CellImage.objects.filter(pk=classified_one.pk).update(status="failed", failure_code="worker_lost")
        expected = {classified_one.pk, failed.pk}
    elif event == "upload":
        expected = {make_image().pk}
    elif event == "requeue":
        services.requeue_image(actor=reader, image=failed)
        expected = {failed.pk}

    answer = changes(client, case, cursor.group(1))

    assert set(answer["images"]) == {str(pk) for pk in expected}
    later = changes(client, case, answer["cursor"])["images"]
    assert set(later) <= ({str(failed.pk)} if event == "claim" else set())


def test_answer_to_nothing_new_is_tiny_and_cheap(
    sign_in: SignIn, technologist: User, an_hour_ago: list[CellImage], django_assert_max_num_queries: Any
) -> None:
    case = an_hour_ago[0].case
    client = sign_in(technologist)
    cursor = changes(client, case, f"{timezone.now().timestamp() + 60:.3f}-1-3")["cursor"]
    url = reverse("case-changes", args=[case.pk])

    with django_assert_max_num_queries(5):
        answer = client.get(
            url, {"since": f"{timezone.now().timestamp() + 60:.3f}-{cursor.split('-', 1)[1]}"}, headers=FRAGMENT
        )

    assert answer.json()["images"] == {}
    assert len(answer.content) < 200


def test_version_of_a_tile_is_the_one_that_the_changes_name(
    sign_in: SignIn, technologist: User, classified: MakeImage
) -> None:
    image = classified()
    client = sign_in(technologist)
    page = client.get(reverse("case", args=[image.case_id])).content.decode()

    version = changes(client, image.case, "0-0-0")["images"][str(image.pk)]

    assert f'data-version="{version}"' in page


@pytest.mark.parametrize("cursor", ["", "garbage", "nan-1-1", "inf-0-0", "1e99-0-0", "-1"])
def test_cursor_that_is_none_is_refused_in_words(cursor: str, sign_in: SignIn, reader: User, case: Case) -> None:
    url = reverse("case-changes", args=[case.pk])

    response = sign_in(reader).get(url, {"since": cursor}, headers=FRAGMENT)

    assert response.status_code == 400
    assert response.json()["code"] == "bad_cursor"


def test_tiles_are_given_for_this_case_only(
    sign_in: SignIn, technologist: User, classified: MakeImage, make_image: MakeImage
) -> None:
    image = classified()
    elsewhere = make_image(case=services.open_case(actor=technologist, accession_number="B-2"))
    url = reverse("case-tiles", args=[image.case_id])

    tiles = sign_in(technologist).get(f"{url}?id={image.pk}&id={elsewhere.pk}").content.decode()

    assert str(image.pk) in tiles
    assert str(elsewhere.pk) not in tiles
    assert sign_in(technologist).get(f"{url}?id=x").status_code == 400


@pytest.mark.parametrize("page", ["case", "case-changes", "case-tiles"])
def test_stranger_gets_404_for_the_gallery_of_another_laboratory(
    page: str, sign_in: SignIn, stranger: User, case: Case
) -> None:
    assert sign_in(stranger).get(reverse(page, args=[case.pk]), headers=FRAGMENT).status_code == 404
