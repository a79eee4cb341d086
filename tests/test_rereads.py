"""Blind re-reads: cells drawn at random, read without the model's answer, and what that says of the reviews."""

import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import AuditEvent, User
from accounts.roles import Role
from classifier import services
from classifier.binomial import limits
from classifier.errors import HematoVisionError
from classifier.models import BlindReading, BlindReread, Case, CellImage, ModelVersion, RereadCell, Review
from classifier.reread_statistics import ReadTwice, result_of
from classifier.rereads import drawable, read_twice
from classifier.services.rereads import drawn_in_order
from tests.conftest import person
from tests.factories import prediction_of

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]


@pytest.fixture
def reviewed(make_image: MakeImage, model_version: ModelVersion, technologist: User) -> Callable[..., CellImage]:
    """An image that the model calls a lymphocyte, reviewed by the technologist unless said otherwise."""

    def make(
        final_label: str = "lymphocyte", *, by: User = technologist, said: str = "lymphocyte", **fields: Any
    ) -> CellImage:
        image = make_image("classified", **fields)
        prediction_of(image, model_version, label=said, abstained=not said, reason="" if said else "not sure")
        verdict = "CONFIRMED" if said == final_label else "CORRECTED"
        services.review_image(actor=by, image=image, verdict=verdict, final_label=final_label)
        image.refresh_from_db()
        return image

    return make


def draw(auditor: User, reader: User, **fields: Any) -> BlindReread:
    return services.draw_reread(actor=auditor, reader=reader, **(fields or {"size": 100}))


def code_of(act: Callable[[], Any]) -> str:
    with pytest.raises(HematoVisionError) as refused:
        act()
    return refused.value.code


def cells_of(reread: BlindReread) -> Iterator[RereadCell]:
    return iter(RereadCell.objects.filter(reread=reread).select_related("reread").order_by("position"))


# --- Drawing ------------------------------------------------------------------------------------------------------


def test_only_cells_that_were_reviewed_beside_a_prediction_are_drawn(
    reviewed: Callable[..., CellImage],
    make_image: MakeImage,
    model_version: ModelVersion,
    auditor: User,
    reader: User,
    technologist: User,
) -> None:
    confirmed, corrected = reviewed(), reviewed("monocyte")
    abstained = reviewed("basophil", said="")
    make_image("reviewed", reader=technologist)
    prediction_of(make_image("classified"), model_version)
    unusable = make_image("classified")
    prediction_of(unusable, model_version)
    services.review_image(actor=technologist, image=unusable, verdict="UNUSABLE")
    withdrawn = reviewed()
    services.review_image(actor=technologist, image=withdrawn, verdict="WITHDRAWN")
    services.void_image(actor=reader, image=reviewed(), reason="wrong patient")
    other = services.open_case(actor=technologist)
    reviewed(case=other)
    services.void_case(actor=reader, case=other, reason="wrong patient")

    reread = draw(auditor, reader)

    assert {cell.image_id for cell in cells_of(reread)} == {confirmed.pk, corrected.pk, abstained.pk}
    assert (reread.size, reread.drawn_from) == (3, 3)
    assert {cell.review_id for cell in cells_of(reread)} == set(
        Review.objects.filter(image__in=[confirmed, corrected, abstained]).values_list("pk", flat=True)
    )


def test_cells_of_another_laboratory_are_never_drawn(
    reviewed: Callable[..., CellImage], stranger: User, other_laboratory: Any, auditor: User
) -> None:
    reviewed()
    assert list(drawable(stranger)) == []
    assert code_of(lambda: draw(auditor, stranger)) == "reader_not_possible"


def test_draw_is_that_of_its_seed_and_can_be_made_again(
    reviewed: Callable[..., CellImage], auditor: User, reader: User
) -> None:
    images = [reviewed() for _ in range(6)]
    reread = draw(auditor, reader, size=4)

    order = sorted(images, key=lambda image: hashlib.sha256(f"{reread.seed}{image.pk}".encode()).hexdigest())

    assert [cell.image_id for cell in cells_of(reread)] == [image.pk for image in order[:4]]
    assert re.fullmatch("[0-9a-f]{32}", reread.seed)


def test_every_cell_is_as_likely_as_any_other() -> None:
    ids = [UUID(int=number) for number in range(10)]
    drawn = [each for number in range(3000) for each in drawn_in_order(ids, f"seed-{number}", 3)]

    counts = [drawn.count(each) for each in ids]
    # 900 each on average; the standard deviation is 25.
    assert min(counts) > 800
    assert max(counts) < 1000


@pytest.mark.parametrize(
    ("wanted", "size"), [({"size": 3}, 3), ({"size": 50}, 5), ({"share_percent": 50}, 3), ({"share_percent": 0.1}, 1)]
)
def test_size_is_a_number_or_a_share(
    wanted: dict[str, Any], size: int, reviewed: Callable[..., CellImage], auditor: User, reader: User
) -> None:
    for _ in range(5):
        reviewed()

    assert draw(auditor, reader, **wanted).size == size


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"size": 0}, "size_out_of_range"),
        ({"size": 1001}, "size_out_of_range"),
        ({"share_percent": 0}, "share_out_of_range"),
        ({"share_percent": 101}, "share_out_of_range"),
        ({"size": 3, "share_percent": 10}, "size_or_share"),
        ({"size": None}, "size_or_share"),
    ],
)
def test_size_that_makes_no_sense_is_refused(
    wanted: dict[str, Any], code: str, reviewed: Callable[..., CellImage], auditor: User, reader: User
) -> None:
    reviewed()
    assert code_of(lambda: draw(auditor, reader, **wanted)) == code
    assert not BlindReread.objects.exists()


def test_days_of_review_narrow_the_draw(reviewed: Callable[..., CellImage], auditor: User, reader: User) -> None:
    reviewed()
    today = timezone.localdate()
    day = timedelta(days=1)

    assert code_of(lambda: draw(auditor, reader, size=1, reviewed_from=today + day)) == "nothing_to_draw"
    assert code_of(lambda: draw(auditor, reader, size=1, reviewed_to=today - day)) == "nothing_to_draw"
    assert draw(auditor, reader, size=1, reviewed_from=today, reviewed_to=today).size == 1


def test_reader_is_given_no_cell_twice(
    reviewed: Callable[..., CellImage], auditor: User, reader: User, technologist: User
) -> None:
    reviewed()
    draw(auditor, reader)

    assert code_of(lambda: draw(auditor, reader)) == "nothing_to_draw"
    assert draw(auditor, technologist).size == 1


@pytest.mark.parametrize("actor", ["technologist", "reader", "lab_admin", "service_account", "operator"])
def test_only_the_auditor_draws(
    actor: str, reviewed: Callable[..., CellImage], reader: User, sign_in: SignIn, request: pytest.FixtureRequest
) -> None:
    reviewed()
    user = request.getfixturevalue(actor)

    assert code_of(lambda: draw(user, reader)) == "not_allowed"
    assert sign_in(user).post(reverse("rereads"), {"reader": reader.pk, "size": 1}).status_code == 403


@pytest.mark.parametrize("wanted", ["auditor", "lab_admin", "gone"])
def test_reader_must_be_somebody_who_reviews(
    wanted: str, reviewed: Callable[..., CellImage], auditor: User, reader: User, request: pytest.FixtureRequest
) -> None:
    reviewed()
    if wanted == "gone":
        User.objects.filter(pk=reader.pk).update(is_active=False)
        user = User.objects.get(pk=reader.pk)
    else:
        user = request.getfixturevalue(wanted)
    assert code_of(lambda: draw(auditor, user)) == "reader_not_possible"


def test_auditor_draws_by_the_form_and_is_told_how_many_are_the_readers_own(
    reviewed: Callable[..., CellImage], auditor: User, reader: User, sign_in: SignIn
) -> None:
    reviewed()
    reviewed(by=reader)

    response = sign_in(auditor).post(reverse("rereads"), {"reader": str(reader.pk), "size": "10"}, follow=True)

    assert "2 cells are drawn for Ruth Reyes; 1 of them are the reader&#x27;s own reviews." in response.content.decode()
    event = AuditEvent.objects.get(action="reread_drawn")
    assert event.facts == {"reader": str(reader.pk), "size": 2, "drawn_from": 2}


# --- Reading blind ------------------------------------------------------------------------------------------------


@pytest.fixture
def named_case(technologist: User) -> Case:
    return services.open_case(actor=technologist, accession_number="ZQX-4711", patient_pseudonym="PSEUDO-9")


def test_page_of_a_cell_holds_no_trace_of_what_was_said(
    reviewed: Callable[..., CellImage],
    named_case: Case,
    auditor: User,
    reader: User,
    technologist: User,
    model_version: ModelVersion,
    sign_in: SignIn,
) -> None:
    image = reviewed("monocyte", case=named_case, name="tell-tale-lymphocyte.jpg")
    reread = draw(auditor, reader)
    client = sign_in(reader)

    page = client.get(reverse("reread", args=[reread.pk]))
    picture = client.get(reverse("reread-picture", args=[reread.pk, 1]))
    answers = page.content.decode() + str(page.headers) + str(picture.headers)

    traces = [str(image.pk), str(named_case.pk), "ZQX", "PSEUDO", "tell-tale", "Tess", "heat", "confidence", "probab"]
    traces += ["92 %", "92%", "0.92", "suggest", "AI ", "cell-lymphocyte", "cell-monocyte", "dot", "checked"]
    traces.append(model_version.name)
    assert [trace for trace in traces if trace in answers.replace("Blind re-read", "")] == []
    # Every class stands there once, in the laboratory's order, however it was called.
    for slug in ("lymphocyte", "monocyte", "basophil"):
        assert answers.count(f'value="{slug}"') == 1
    assert b"".join(picture.streaming_content) == image.file.open("rb").read()  # type: ignore[attr-defined]


def test_page_is_the_same_whatever_the_model_and_the_review_said(
    reviewed: Callable[..., CellImage], auditor: User, reader: User, sign_in: SignIn
) -> None:
    for label in ("lymphocyte", "monocyte"):
        reviewed(label)
    reread = draw(auditor, reader)
    client, pages = sign_in(reader), []
    for _ in range(2):
        content = client.get(reverse("reread", args=[reread.pk])).content.decode()
        pages.append(re.sub(r'name="csrfmiddlewaretoken" value="\w+"', "", content))
        client.post(reverse("reread", args=[reread.pk]), {"position": len(pages), "label": "basophil"})

    def plain(page: str, position: int) -> str:
        page = page.replace(f"cells/{position}/", "").replace(f'name="position" value="{position}"', "")
        return re.sub(r'\b[01] of 2|value="[01]"', "", page)

    assert plain(pages[0], 1) == plain(pages[1], 2)


def test_reader_goes_through_the_cells_leaves_and_comes_back(
    reviewed: Callable[..., CellImage], auditor: User, reader: User, sign_in: SignIn
) -> None:
    for _ in range(3):
        reviewed()
    reread = draw(auditor, reader)
    url = reverse("reread", args=[reread.pk])
    client = sign_in(reader)
    assert "3</span> cells were drawn for you" in client.get(reverse("home")).content.decode()

    assert "0 of 3 read" in client.get(url).content.decode()
    assert "1 of 3 read" in client.post(url, {"position": 1, "label": "lymphocyte"}, follow=True).content.decode()
    content = sign_in(reader).get(url).content.decode()
    assert "1 of 3 read" in content
    assert 'name="position" value="2"' in content
    client.post(url, {"position": 2, "label": "unusable"})
    finished = client.post(url, {"position": 3, "label": "monocyte"}, follow=True).content.decode()

    assert "What this can and can" in finished
    assert [(each.label, each.unusable) for each in BlindReading.objects.order_by("cell__position")] == [
        ("lymphocyte", False),
        ("", True),
        ("monocyte", False),
    ]
    reread.refresh_from_db()
    assert reread.closed_at is not None
    assert "cells were drawn for you" not in client.get(reverse("home")).content.decode()
    assert client.get(reverse("reread-picture", args=[reread.pk, 1])).status_code == 404
    actions = AuditEvent.objects.filter(target_id=str(reread.pk)).order_by("at", "id").values_list("action", flat=True)
    assert sorted(actions) == sorted(["reread_drawn", *["blind_reading_made"] * 3, "reread_closed"])


def test_reader_sees_no_result_before_the_end(
    reviewed: Callable[..., CellImage], auditor: User, reader: User, sign_in: SignIn
) -> None:
    for _ in range(2):
        reviewed()
    reread = draw(auditor, reader)
    services.read_blind(actor=reader, cell=next(cells_of(reread)), label="lymphocyte")

    assert "kappa" not in sign_in(reader).get(reverse("reread", args=[reread.pk])).content.decode()
    assert "kappa" in sign_in(auditor).get(reverse("reread", args=[reread.pk])).content.decode()


def test_nothing_chosen_is_asked_for_again(
    reviewed: Callable[..., CellImage], auditor: User, reader: User, sign_in: SignIn
) -> None:
    reviewed()
    reread = draw(auditor, reader)

    response = sign_in(reader).post(reverse("reread", args=[reread.pk]), {"position": 1})

    assert response.status_code == 400
    assert "Say what the cell is" in response.content.decode()
    assert code_of(lambda: services.read_blind(actor=reader, cell=next(cells_of(reread)), label="cat")) == (
        "unknown_cell_type"
    )


@pytest.mark.parametrize("position", ["", "x", "0", "2", "99999999999", "\u0661"])
def test_position_that_is_no_cell_is_not_found(
    position: str, reviewed: Callable[..., CellImage], auditor: User, reader: User, sign_in: SignIn
) -> None:
    reviewed()
    url = reverse("reread", args=[draw(auditor, reader).pk])

    assert sign_in(reader).post(url, {"position": position, "label": "monocyte"}).status_code == 404


def test_reading_is_a_fact_and_the_same_one_again_is_that_one(
    reviewed: Callable[..., CellImage], auditor: User, reader: User, delete_triggers: None
) -> None:
    reviewed(), reviewed()
    cell = next(cells_of(draw(auditor, reader)))
    first = services.read_blind(actor=reader, cell=cell, label="monocyte")

    assert services.read_blind(actor=reader, cell=cell, label="monocyte") == first
    assert code_of(lambda: services.read_blind(actor=reader, cell=cell, label="basophil")) == "already_read"
    with pytest.raises(TypeError):
        first.delete()
    for statement in ("UPDATE classifier_blindreading SET label = 'basophil'", "DELETE FROM classifier_blindreading"):
        with (
            pytest.raises(DatabaseError),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
    with pytest.raises(IntegrityError), transaction.atomic():
        BlindReading(cell=cell, reader=reader, label="basophil").save()


@pytest.mark.parametrize("actor", ["technologist", "auditor", "lab_admin"])
def test_nobody_reads_for_somebody_else(
    actor: str,
    reviewed: Callable[..., CellImage],
    auditor: User,
    reader: User,
    sign_in: SignIn,
    request: pytest.FixtureRequest,
) -> None:
    reviewed()
    reread = draw(auditor, reader)
    user = request.getfixturevalue(actor)
    url = reverse("reread", args=[reread.pk])

    assert code_of(lambda: services.read_blind(actor=user, cell=next(cells_of(reread)), label="monocyte")) == (
        "not_allowed"
    )
    # The auditor sees the re-read; the others are not told that there is one.
    assert sign_in(user).post(url, {"position": 1, "label": "monocyte"}).status_code == (
        403 if actor == "auditor" else 404
    )
    assert sign_in(user).get(reverse("reread-picture", args=[reread.pk, 1])).status_code == 404


def test_stranger_finds_neither_the_reread_nor_its_pictures(
    reviewed: Callable[..., CellImage],
    auditor: User,
    reader: User,
    stranger: User,
    other_laboratory: Any,
    operator: User,
    sign_in: SignIn,
) -> None:
    reviewed()
    reread = draw(auditor, reader)
    their_auditor = person("sue@south.example", "Sue Sharp", other_laboratory, Role.AUDITOR)

    for user in (stranger, their_auditor, operator):
        client = sign_in(user)
        assert client.get(reverse("reread", args=[reread.pk])).status_code == 404
        assert client.get(reverse("reread-picture", args=[reread.pk, 1])).status_code == 404
        assert client.post(reverse("reread-close", args=[reread.pk])).status_code == 404
    assert "Ruth" not in sign_in(their_auditor).get(reverse("rereads")).content.decode()
    assert code_of(lambda: services.close_reread(actor=their_auditor, reread=reread)) == "not_allowed"


def test_cell_that_was_voided_meanwhile_is_left_out(
    reviewed: Callable[..., CellImage], auditor: User, reader: User, sign_in: SignIn
) -> None:
    for _ in range(2):
        reviewed()
    reread = draw(auditor, reader)
    first, second = cells_of(reread)
    services.void_image(actor=reader, image=CellImage.objects.get(pk=first.image_id), reason="wrong patient")
    client = sign_in(reader)

    content = client.get(reverse("reread", args=[reread.pk])).content.decode()
    assert 'name="position" value="2"' in content
    assert "1 taken out since" in content
    assert client.get(reverse("reread-picture", args=[reread.pk, 1])).status_code == 404
    services.read_blind(actor=reader, cell=second, label="monocyte")

    reread.refresh_from_db()
    assert reread.closed_at is not None
    assert len(read_twice(reread)) == 1


def test_auditor_closes_a_reread_early_and_what_was_read_counts(
    reviewed: Callable[..., CellImage], auditor: User, reader: User, sign_in: SignIn
) -> None:
    for _ in range(2):
        reviewed()
    reread = draw(auditor, reader)
    first, second = cells_of(reread)
    services.read_blind(actor=reader, cell=first, label="lymphocyte")

    assert sign_in(reader).post(reverse("reread-close", args=[reread.pk])).status_code == 403
    for _ in range(2):
        assert sign_in(auditor).post(reverse("reread-close", args=[reread.pk])).status_code == 302

    assert AuditEvent.objects.filter(action="reread_closed").count() == 1
    assert code_of(lambda: services.read_blind(actor=reader, cell=second, label="monocyte")) == "reread_closed"
    content = sign_in(reader).get(reverse("reread", args=[reread.pk])).content.decode()
    assert "1 of 2" in content
    assert "Agreement" in content


def test_later_review_changes_nothing_of_what_was_drawn(
    reviewed: Callable[..., CellImage], auditor: User, reader: User, technologist: User
) -> None:
    image = reviewed("monocyte")
    reread = draw(auditor, reader)
    services.review_image(actor=technologist, image=image, verdict="CORRECTED", final_label="basophil")
    services.read_blind(actor=reader, cell=next(cells_of(reread)), label="basophil")

    assert read_twice(reread) == [ReadTwice(blind="basophil", sighted="monocyte", model="lymphocyte", own=False)]


# --- What it comes to ---------------------------------------------------------------------------------------------


def cells(*groups: tuple[int, str, str, str], own: bool = False) -> list[ReadTwice]:
    return [ReadTwice(blind, sighted, model, own) for n, blind, sighted, model in groups for _ in range(n)]


def test_figures_of_a_reread_worked_out_by_hand() -> None:
    result = result_of(
        cells(
            (40, "lymphocyte", "lymphocyte", "lymphocyte"),
            (6, "monocyte", "lymphocyte", "lymphocyte"),  # the model's answer was taken over
            (3, "monocyte", "monocyte", "lymphocyte"),  # the reader stayed with the own answer
            (1, "monocyte", "basophil", "lymphocyte"),  # and once went elsewhere
            (2, "lymphocyte", "monocyte", "lymphocyte"),  # left the model, with the model read blind
            (5, "basophil", "basophil", ""),  # the model abstained
            (4, "", "lymphocyte", "lymphocyte"),  # of no use as a picture
        )
    )

    assert (result.read, result.unusable, result.abstained, result.compared, result.answered) == (61, 4, 5, 57, 52)
    assert (result.agreement.k, result.agreement.n) == (48, 57)
    assert (result.blind_with_model.k, result.blind_with_model.n) == (42, 52)
    assert (result.sighted_with_model.k, result.sighted_with_model.n) == (46, 52)
    assert (result.taken_over.k, result.taken_over.n) == (6, 10)
    assert (result.went_elsewhere.k, result.went_elsewhere.n) == (1, 10)
    assert (result.left_the_model.k, result.left_the_model.n) == (2, 42)
    assert (result.taken_over.low, result.taken_over.high) == limits(6, 10)
    assert result.confusion["monocyte"] == {"lymphocyte": 6, "monocyte": 3, "basophil": 1}
    assert [row.n for row in result.matrix] == [5, 42, 10]


def test_kappa_of_a_reread_is_cohens() -> None:
    """Cohen's table: 20 and 15 alike, 5 and 10 not; kappa 0.4."""
    result = result_of(
        cells(
            (20, "monocyte", "monocyte", ""),
            (5, "monocyte", "lymphocyte", ""),
            (10, "lymphocyte", "monocyte", ""),
            (15, "lymphocyte", "lymphocyte", ""),
        )
    )

    assert result.kappa is not None
    assert result.kappa.value == pytest.approx(0.4)
    assert result.kappa.low < 0.4 < result.kappa.high
    assert result.answered == 0
    assert result.taken_over.share is None


def test_nothing_read_says_nothing() -> None:
    result = result_of([])

    assert (result.read, result.compared, result.kappa, result.matrix) == (0, 0, None, [])
    assert result.agreement.share is None


def test_result_page_tells_own_reviews_from_those_of_others(
    reviewed: Callable[..., CellImage], auditor: User, reader: User, sign_in: SignIn, django_assert_max_num_queries: Any
) -> None:
    own, others = reviewed("monocyte", by=reader), reviewed()
    reread = draw(auditor, reader)
    for cell in cells_of(reread):
        services.read_blind(actor=reader, cell=cell, label="monocyte")
    assert {cell.image_id for cell in cells_of(reread)} == {own.pk, others.pk}

    client = sign_in(auditor)
    client.get(reverse("rereads"))
    with django_assert_max_num_queries(12):
        content = client.get(reverse("reread", args=[reread.pk])).content.decode()

    assert content.count("1 of 1") >= 1
    rows = re.findall(r"First reviewed by (?:the same person|somebody else)</th>\s*<td[^>]*>([^<]*)", content)
    assert [row.strip().replace("\xa0", " ") for row in rows] == ["100 %", "0 %"]
    assert reread.seed in content
