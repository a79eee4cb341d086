"""Reviewing an image: one verdict, written as a fact, that nobody can overwrite unseen."""

from types import EllipsisType
from typing import NoReturn
from uuid import UUID

from django.db import transaction

from accounts import audit
from accounts.models import User
from accounts.roles import Verb
from classifier.case_transitions import move_case
from classifier.errors import Conflict, InvalidInput
from classifier.models import Case, CaseStatus, CellImage, ImageStatus, Prediction, Review, Verdict
from classifier.services.permission import require, require_editable, storable
from classifier.transitions import move
from ml.labels import CELL_TYPES


@transaction.atomic
def review_image(
    *,
    actor: User,
    image: CellImage,
    verdict: str,
    final_label: str = "",
    comment: str = "",
    previous_review: UUID | EllipsisType | None = ...,
) -> Review:
    """Write what `actor` says about the image, and let it count from now on.

    `previous_review` is the id of the review that the actor has seen counting (None: that there was none); where
    another one counts by now, nothing is written. Left out, nothing is compared. The same review sent again, after an
    answer that was lost, is found and returned. WITHDRAWN makes the review before the one that counts count again.
    CONFIRMED may say in `final_label` which class of the model the actor has seen: any other is not confirmed.

    Raises NotAllowed; InvalidInput (unknown_verdict, unknown_cell_type, final_label_missing, final_label_not_wanted,
    nothing_to_confirm, nothing_to_correct, not_failed, nothing_to_withdraw, comment_too_long); Conflict (review_changed
    with the other's review, prediction_changed, not_classified_yet, image_void, case_released, case_void).
    """
    require(actor, Verb.REVIEW, image.case)
    # Two reviews of a case, or a review and the release, never pass each other.
    case = Case.objects.select_for_update(no_key=True).get(pk=image.case_id)
    # Nor do a review and a newer model's prediction, which takes the image alone.
    held = CellImage.objects.select_for_update(of=("self",), no_key=True)
    image = held.select_related("current_review__reader", "void").get(pk=image.pk)
    if previous_review is not ... and image.current_review_id != previous_review:
        return sent_before(actor, image, verdict, final_label, previous_review) or refuse_changed(image)
    require_editable(case)
    if image.is_void:
        raise Conflict("image_void", "This image is void: it counts nowhere, so there is nothing to review.")
    if image.is_waiting:
        raise Conflict("not_classified_yet", "This image is not classified yet. Review it when its result is there.")
    review = Review(
        image=image,
        reader=actor,
        verdict=verdict,
        comment=storable(comment),
        previous=image.current_review,
        failure_code=image.failure_code or (image.current_review.failure_code if image.current_review else ""),
    )
    if len(review.comment) > 1000:
        raise InvalidInput("comment_too_long", "A comment has at most 1,000 characters.")
    say(review, final_label)
    review.save()
    let_count(review)
    if case.status == CaseStatus.OPEN:
        move_case(case, CaseStatus.IN_REVIEW)
    audit.record(action="image_reviewed", actor=actor, target=image, review=str(review.pk), verdict=verdict)
    return review


def sent_before(
    actor: User, image: CellImage, verdict: str, final_label: str, previous_review: UUID | None
) -> Review | None:
    """The newest review of the image, if it is this very one: its answer was lost and it is sent again."""
    newest = image.reviews.select_related("reader").order_by("-created_at", "-id").first()
    if newest is None or (newest.reader_id, newest.verdict, newest.previous_id) != (actor.pk, verdict, previous_review):
        return None
    return newest if verdict == Verdict.CONFIRMED or newest.final_label == final_label else None


def refuse_changed(image: CellImage) -> NoReturn:
    other = image.current_review
    message = (
        f"{other.reader} has reviewed this image meanwhile. Look at it and decide again."
        if other
        else "The review of this image was withdrawn meanwhile. Look at it and decide again."
    )
    raise Conflict("review_changed", message, review=other.as_dict() if other else None)


def say(review: Review, final_label: str) -> None:
    """Fill in the label and the prediction that the verdict is about. Raises InvalidInput where the two don't fit."""
    image = review.image
    by_hand = bool(review.failure_code)
    prediction = None if by_hand else Prediction.objects.filter(image=image).first()
    review.prediction = prediction
    if final_label and final_label not in CELL_TYPES:
        raise InvalidInput("unknown_cell_type", f"There is no cell type of that name. Known: {', '.join(CELL_TYPES)}.")
    match review.verdict:
        case Verdict.CONFIRMED:
            if prediction is None or not prediction.label:
                raise InvalidInput("nothing_to_confirm", "The model gives no class here, so say what the cell is.")
            if final_label not in ("", prediction.label):
                message = "The model's result is not the one that was confirmed. Look at it and decide again."
                raise Conflict("prediction_changed", message)
            review.final_label = prediction.label
        case Verdict.CORRECTED:
            if prediction is None:
                raise InvalidInput("nothing_to_correct", "The model gave no result here, so read the image by hand.")
            if not final_label:
                raise InvalidInput("final_label_missing", "Say what the cell is.")
            if final_label == prediction.label:
                raise InvalidInput("nothing_to_correct", "That is what the model says: confirm it instead.")
            review.final_label = final_label
        case Verdict.MANUAL:
            if not by_hand:
                raise InvalidInput("not_failed", "Only an image that failed is read by hand; correct the others.")
            if not final_label:
                raise InvalidInput("final_label_missing", "Say what the cell is.")
            review.final_label = final_label
        case Verdict.UNUSABLE | Verdict.WITHDRAWN:
            if final_label:
                raise InvalidInput("final_label_not_wanted", "This verdict has no cell type.")
            if review.verdict == Verdict.WITHDRAWN and review.previous is None:
                raise InvalidInput("nothing_to_withdraw", "There is no review to withdraw.")
        case _:
            raise InvalidInput("unknown_verdict", f"There is no such verdict. Known: {', '.join(Verdict.values)}.")


def let_count(review: Review) -> None:
    """Point the image at the review that counts from now on. Raises Conflict when somebody else was faster."""
    withdrawn = review.verdict == Verdict.WITHDRAWN and review.previous
    counts = withdrawn.previous if withdrawn else review
    source = ImageStatus(review.image.status)
    rows = CellImage.objects.filter(pk=review.image_id, current_review=review.previous)
    if counts and source is ImageStatus.REVIEWED:
        moved = rows.filter(status=source).update(current_review=counts)
    elif counts:
        moved = move(rows, source=source, target=ImageStatus.REVIEWED, current_review=counts, failure_code="")
    else:
        target = ImageStatus.FAILED if review.failure_code else ImageStatus.CLASSIFIED
        moved = move(rows, source=source, target=target, failure_code=review.failure_code)
    if not moved:
        refuse_changed(CellImage.objects.select_related("current_review__reader").get(pk=review.image_id))
