"""What a review does: the verdicts, the chain of who said what, and two people at once."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, connections

from accounts.models import AuditEvent, User
from classifier import services
from classifier.errors import Conflict, HematoVisionError, InvalidInput, NotAllowed
from classifier.models import Case, CaseStatus, CellImage, ImageStatus, ModelVersion, Review, Verdict
from classifier.services import review_image
from tests.factories import prediction_of

MakeImage = Callable[..., CellImage]


@pytest.fixture
def lymphocyte(make_image: MakeImage, model_version: ModelVersion) -> CellImage:
    """An image that the model calls a lymphocyte."""
    image = make_image("classified")
    prediction_of(image, model_version)
    return image


@pytest.fixture
def unidentified(make_image: MakeImage, model_version: ModelVersion) -> CellImage:
    """An image on which the model abstains."""
    image = make_image("classified")
    prediction_of(image, model_version, label="", abstained=True, reason="The model is not sure.")
    return image


def now_counting(image: CellImage) -> tuple[str, str] | None:
    image.refresh_from_db()
    return (image.current_review.verdict, image.current_review.final_label) if image.current_review else None


def test_confirmed_review_repeats_the_models_class_and_counts(lymphocyte: CellImage, reader: User) -> None:
    review = review_image(actor=reader, image=lymphocyte, verdict="CONFIRMED")

    assert now_counting(lymphocyte) == ("CONFIRMED", "lymphocyte")
    assert lymphocyte.status == ImageStatus.REVIEWED
    assert review.prediction == lymphocyte.latest_prediction
    assert review.reader == reader


def test_correction_keeps_the_prediction_and_counts_the_readers_class(lymphocyte: CellImage, reader: User) -> None:
    review = review_image(actor=reader, image=lymphocyte, verdict="CORRECTED", final_label="monocyte", comment=" big ")

    assert now_counting(lymphocyte) == ("CORRECTED", "monocyte")
    assert review.comment == "big"
    assert lymphocyte.latest_prediction is not None
    assert lymphocyte.latest_prediction.label == "lymphocyte"


def test_abstained_prediction_is_corrected_not_confirmed(unidentified: CellImage, reader: User) -> None:
    with pytest.raises(InvalidInput, match="nothing_to_confirm"):
        review_image(actor=reader, image=unidentified, verdict="CONFIRMED")
    review_image(actor=reader, image=unidentified, verdict="CORRECTED", final_label="lymphocyte")

    assert now_counting(unidentified) == ("CORRECTED", "lymphocyte")


def test_failed_image_is_read_by_hand_and_a_withdrawal_gives_its_failure_back(
    make_image: MakeImage, reader: User
) -> None:
    image = make_image("failed")
    review_image(actor=reader, image=image, verdict="MANUAL", final_label="basophil")
    image.refresh_from_db()
    assert (image.status, image.failure_code) == (ImageStatus.REVIEWED, "")

    review_image(actor=reader, image=image, verdict="MANUAL", final_label="eosinophil")
    review_image(actor=reader, image=image, verdict="WITHDRAWN")
    assert now_counting(image) == ("MANUAL", "basophil")

    review_image(actor=reader, image=image, verdict="WITHDRAWN")
    image.refresh_from_db()
    assert (image.status, image.failure_code, image.current_review) == (ImageStatus.FAILED, "prediction_failed", None)


@pytest.mark.parametrize("kind", ["classified", "failed"])
def test_unusable_image_counts_under_no_class(
    kind: str, make_image: MakeImage, model_version: ModelVersion, reader: User
) -> None:
    image = make_image(kind)
    if kind == "classified":
        prediction_of(image, model_version)
    review_image(actor=reader, image=image, verdict="UNUSABLE")

    assert now_counting(image) == ("UNUSABLE", "")


def test_withdrawals_step_back_through_the_chain_to_the_unreviewed_image(
    lymphocyte: CellImage, reader: User, technologist: User
) -> None:
    review_image(actor=technologist, image=lymphocyte, verdict="CONFIRMED")
    review_image(actor=reader, image=lymphocyte, verdict="CORRECTED", final_label="monocyte")

    review_image(actor=reader, image=lymphocyte, verdict="WITHDRAWN")
    assert now_counting(lymphocyte) == ("CONFIRMED", "lymphocyte")
    review_image(actor=reader, image=lymphocyte, verdict="WITHDRAWN")
    assert now_counting(lymphocyte) is None
    assert lymphocyte.status == ImageStatus.CLASSIFIED
    with pytest.raises(InvalidInput, match="nothing_to_withdraw"):
        review_image(actor=reader, image=lymphocyte, verdict="WITHDRAWN")
    assert [review.verdict for review in lymphocyte.reviews.all()] == [
        Verdict.WITHDRAWN,
        Verdict.WITHDRAWN,
        Verdict.CORRECTED,
        Verdict.CONFIRMED,
    ]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"verdict": "CORRECTED"}, "final_label_missing"),
        ({"verdict": "CORRECTED", "final_label": "lymphocyte"}, "nothing_to_correct"),
        ({"verdict": "CORRECTED", "final_label": "dragon"}, "unknown_cell_type"),
        ({"verdict": "UNUSABLE", "final_label": "monocyte"}, "final_label_not_wanted"),
        ({"verdict": "WITHDRAWN"}, "nothing_to_withdraw"),
        ({"verdict": "MANUAL", "final_label": "monocyte"}, "not_failed"),
        ({"verdict": "confirmed"}, "unknown_verdict"),
        ({"verdict": ""}, "unknown_verdict"),
        ({"verdict": "CONFIRMED", "comment": "x" * 1001}, "comment_too_long"),
    ],
)
def test_review_that_does_not_fit_is_refused_with_its_code_and_writes_nothing(
    said: dict[str, Any], code: str, lymphocyte: CellImage, reader: User
) -> None:
    with pytest.raises(InvalidInput) as refused:
        review_image(actor=reader, image=lymphocyte, **said)

    assert refused.value.code == code
    assert refused.value.message.endswith(".")
    assert not Review.objects.exists()
    assert now_counting(lymphocyte) is None


def test_failed_image_has_nothing_to_confirm_or_correct(make_image: MakeImage, reader: User) -> None:
    image = make_image("failed")

    with pytest.raises(InvalidInput, match="nothing_to_confirm"):
        review_image(actor=reader, image=image, verdict="CONFIRMED")
    with pytest.raises(InvalidInput, match="nothing_to_correct"):
        review_image(actor=reader, image=image, verdict="CORRECTED", final_label="monocyte")
    with pytest.raises(InvalidInput, match="final_label_missing"):
        review_image(actor=reader, image=image, verdict="MANUAL")


@pytest.mark.parametrize("status", ["queued", "claimed"])
def test_waiting_image_is_not_reviewed(status: str, make_image: MakeImage, reader: User) -> None:
    with pytest.raises(Conflict, match="not_classified_yet"):
        review_image(actor=reader, image=make_image(status), verdict="UNUSABLE")


@pytest.mark.parametrize("actor", ["auditor", "lab_admin", "service_account", "stranger", "operator"])
def test_only_technologists_and_readers_of_the_laboratory_review(
    actor: str, lymphocyte: CellImage, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(NotAllowed):
        review_image(actor=request.getfixturevalue(actor), image=lymphocyte, verdict="CONFIRMED")

    assert not Review.objects.exists()


def test_first_review_puts_the_case_in_review(lymphocyte: CellImage, case: Case, technologist: User) -> None:
    review_image(actor=technologist, image=lymphocyte, verdict="CONFIRMED")

    case.refresh_from_db()
    assert case.status == CaseStatus.IN_REVIEW


@pytest.mark.parametrize(
    ("status", "code"), [("released", "case_released"), ("corrected", "case_released"), ("void", "case_void")]
)
def test_closed_case_takes_no_review_and_no_image(
    status: str, code: str, lymphocyte: CellImage, case: Case, reader: User, smear: bytes, as_upload: Callable[..., Any]
) -> None:
    Case.objects.filter(pk=case.pk).update(status=status)
    case.refresh_from_db()

    with pytest.raises(Conflict, match=code):
        review_image(actor=reader, image=lymphocyte, verdict="CONFIRMED")
    with pytest.raises(Conflict, match=code):
        services.add_image(actor=reader, case=case, upload=as_upload(smear))
    with pytest.raises(Conflict, match=code):
        services.void_image(actor=reader, image=lymphocyte, reason="wrong patient")
    assert CellImage.objects.filter(case=case).count() == 1


def test_upload_that_was_on_its_way_when_the_case_was_closed_leaves_nothing_behind(
    case: Case, technologist: User, smear: bytes, as_upload: Callable[..., Any], settings: Any
) -> None:
    seen_open = Case.objects.get(pk=case.pk)
    Case.objects.filter(pk=case.pk).update(status="released")

    with pytest.raises(Conflict, match="case_released"):
        services.add_image(actor=technologist, case=seen_open, upload=as_upload(smear))

    assert not CellImage.objects.exists()
    assert not [path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()]


def test_void_image_takes_no_review_and_is_not_queued_again(
    lymphocyte: CellImage, reader: User, technologist: User
) -> None:
    with pytest.raises(InvalidInput, match="reason_missing"):
        services.void_image(actor=reader, image=lymphocyte, reason="  ")
    with pytest.raises(NotAllowed):
        services.void_image(actor=technologist, image=lymphocyte, reason="wrong patient")
    services.void_image(actor=reader, image=lymphocyte, reason="wrong patient")
    lymphocyte = CellImage.objects.get(pk=lymphocyte.pk)

    with pytest.raises(Conflict, match="image_void"):
        review_image(actor=reader, image=lymphocyte, verdict="CONFIRMED")
    with pytest.raises(Conflict, match="image_void"):
        services.requeue_image(actor=reader, image=lymphocyte)
    with pytest.raises(Conflict, match="already_void"):
        services.void_image(actor=reader, image=lymphocyte, reason="again")
    assert lymphocyte.is_void


def test_same_picture_as_a_void_one_is_refused_with_a_sentence(
    case: Case, reader: User, smear: bytes, as_upload: Callable[..., Any]
) -> None:
    image, _ = services.add_image(actor=reader, case=case, upload=as_upload(smear))
    services.void_image(actor=reader, image=image, reason="wrong patient")

    with pytest.raises(Conflict, match="image_void"):
        services.add_image(actor=reader, case=case, upload=as_upload(smear))


def test_review_that_was_changed_meanwhile_is_not_overwritten(
    lymphocyte: CellImage, reader: User, technologist: User
) -> None:
    first = review_image(actor=technologist, image=lymphocyte, verdict="CONFIRMED", previous_review=None)

    with pytest.raises(Conflict) as refused:
        review_image(actor=reader, image=lymphocyte, verdict="CORRECTED", final_label="monocyte", previous_review=None)

    assert refused.value.code == "review_changed"
    assert refused.value.details["review"]["id"] == str(first.pk)
    assert refused.value.details["review"]["reader"] == "Tess Tanner"
    assert now_counting(lymphocyte) == ("CONFIRMED", "lymphocyte")

    review_image(actor=reader, image=lymphocyte, verdict="CORRECTED", final_label="monocyte", previous_review=first.pk)
    assert now_counting(lymphocyte) == ("CORRECTED", "monocyte")


@pytest.mark.parametrize(
    "said", [{"verdict": "CONFIRMED"}, {"verdict": "CORRECTED", "final_label": "monocyte"}, {"verdict": "UNUSABLE"}]
)
def test_review_sent_again_after_a_lost_answer_is_the_same_review(
    said: dict[str, str], lymphocyte: CellImage, reader: User
) -> None:
    first = review_image(actor=reader, image=lymphocyte, previous_review=None, **said)
    again = review_image(actor=reader, image=lymphocyte, previous_review=None, **said)

    assert again == first
    assert Review.objects.count() == 1


def test_withdrawal_sent_again_withdraws_once(lymphocyte: CellImage, reader: User) -> None:
    first = review_image(actor=reader, image=lymphocyte, verdict="CONFIRMED")
    second = review_image(actor=reader, image=lymphocyte, verdict="CORRECTED", final_label="monocyte")
    for _ in range(2):
        review_image(actor=reader, image=lymphocyte, verdict="WITHDRAWN", previous_review=second.pk)

    lymphocyte.refresh_from_db()
    assert lymphocyte.current_review == first
    assert Review.objects.count() == 3


def test_review_is_in_the_audit_trail_without_patient_text(lymphocyte: CellImage, reader: User) -> None:
    review = review_image(actor=reader, image=lymphocyte, verdict="CONFIRMED", comment="Mrs Example")

    event = AuditEvent.objects.get(action="image_reviewed")
    assert (event.actor, event.target_id) == (reader, str(lymphocyte.pk))
    assert event.facts == {"review": str(review.pk), "verdict": "CONFIRMED"}


@pytest.mark.django_db(transaction=True)
def test_two_readers_at_the_same_moment_write_one_review_and_one_refusal(
    lymphocyte: CellImage, reader: User, technologist: User
) -> None:
    outcomes: list[str] = []
    ready = threading.Barrier(2)

    def say(actor: User, label: str) -> None:
        try:
            ready.wait()
            review_image(actor=actor, image=lymphocyte, verdict="CORRECTED", final_label=label, previous_review=None)
            outcomes.append("written")
        except HematoVisionError as error:
            outcomes.append(error.code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=say, args=pair) for pair in ((reader, "monocyte"), (technologist, "neutrophil"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    connection.close()

    assert sorted(outcomes) == ["review_changed", "written"]
    assert Review.objects.count() == 1
