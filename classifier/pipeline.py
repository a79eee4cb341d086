"""What the machine does with queued images: claim, classify, complete; and take back what a lost worker held.

The guarantees, and what gives each of them:
- an image is classified exactly once: a claim and its completion are UPDATEs guarded by status and token, and the
  prediction is inserted in the transaction of the completion;
- a lost worker loses nothing: its claim expires and the sweep puts the image back;
- a picture that kills workers costs its neighbours one try: whatever was claimed before is claimed alone;
- nothing is claimed without a usable model.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import DataError, IntegrityError, models, transaction
from django.db.models import Case, F, When
from django.db.models.functions import Now

from accounts.built_statements import BuiltInsert, BuiltSelect, OneOf
from classifier import thumbnails, worker_counts
from classifier.abstention import held_back, threshold_of
from classifier.active_model import Signature, active_version, bundle_of, signature_of, verified_card
from classifier.batch_steps import finish_batches
from classifier.claims import TOKEN, Claim, anything_waits, claim_batch
from classifier.errors import StorageUnavailable
from classifier.machine_audit import record_classified, record_failed
from classifier.models import CellImage, ImageStatus, ModelVersion, Prediction, Priority
from classifier.querysets import CellImageQuerySet
from classifier.services.notifications import notify_images_done
from classifier.storage import private_files
from classifier.transitions import built_move, move
from classifier.wakeup import send_unless_one_waits, send_wake_up
from classifier.webhooks import announce_classified, announce_failed
from ml.errors import ModelUnavailable, UnreadableImage

if TYPE_CHECKING:
    from ml.predictor import CellPrediction, Predictor, PreparedCell

logger = structlog.get_logger(__name__)
MAX_FAULTS = 3


@dataclass(frozen=True)
class LoadedModel:
    """A predictor in this process's memory, and the files that it was read from."""

    version: ModelVersion
    signature: Signature
    predictor: "Predictor"


held_model: LoadedModel | None = None
loading = threading.Lock()
HELD = CellImage.objects.filter(OneOf("pk", "images", models.UUIDField()), claim_token=TOKEN)
# Locked in the order of `locked`.
STILL_HELD = BuiltSelect(
    HELD.filter(status=ImageStatus.CLAIMED)
    .order_by("pk")
    .select_for_update()
    .values_list("pk", threshold_of("laboratory"))
)
# Of all models: with the model in the condition, PostgreSQL would at times read all of a new model's predictions.
THEIR_PREDICTIONS = BuiltSelect(
    Prediction.objects.filter(OneOf("image", "images", models.UUIDField()))
    .order_by()
    .values_list("image_id", "model_version_id")
)
PREDICTIONS = BuiltInsert(Prediction)
COMPLETE = built_move(
    HELD,
    source=ImageStatus.CLAIMED,
    target=ImageStatus.CLASSIFIED,
    classified_at=Now(),
    has_thumbnail=Case(When(OneOf("pk", "drawn", models.UUIDField()), then=True), default=F("has_thumbnail")),
)


def load_model() -> LoadedModel:
    """The active model, loaded once a process and anew when it or its files change. Raises ModelUnavailable."""
    global held_model  # noqa: PLW0603 - one model a process is the point
    version = active_version()
    with loading:
        verified_card(version)
        signature = signature_of(bundle_of(version))
        if held_model is None or (held_model.version, held_model.signature) != (version, signature):
            # The model runtime is heavy and belongs to the worker alone.
            from ml.predictor import load_predictor

            predictor = load_predictor(bundle_of(version), threads=settings.MODEL_THREADS)
            held_model = LoadedModel(version, signature, predictor)
            logger.info("model_loaded", model=str(version), sha256=version.sha256)
        return held_model


def classify_queued(seconds: float = 0.0) -> int:
    """Classify one micro-batch after the other, at least one, until nothing is queued or so many seconds are over;
    then whoever is free goes on. Returns how many images were claimed.

    A turn of some length calls one more worker, where there is work for it: so a full queue that one wake-up began
    has all of them after a turn each.
    """
    ends = time.monotonic() + seconds
    classified, is_alone = 0, seconds > 0
    while claimed := classify_next_batch():
        classified += claimed
        if not anything_waits():
            break
        if is_alone:
            is_alone = False
            send_unless_one_waits()
        if time.monotonic() >= ends:
            send_wake_up()
            break
    return classified


def classify_next_batch() -> int:
    """Claim one micro-batch and classify it; returns how many images were claimed.

    The batch makes itself: whatever is queued now, up to the batch size, without waiting for more.
    """
    try:
        model = load_model()
    except ModelUnavailable as error:
        logger.warning("model_unavailable", code=error.code)
        return 0
    claim = claim_batch(settings.MICRO_BATCH_SIZE)
    if not claim.images:
        return 0
    # Every line about these images, whoever writes it, names the claim; this one names the images.
    with structlog.contextvars.bound_contextvars(claim=str(claim.token)):
        logger.info("images_claimed", images=[str(image.pk) for image in claim.images], batches=batches_of(claim))
        try:
            classify_batch(claim, model)
        except BaseException:
            # A fault of ours (database, storage, stop signal), not of a picture: it costs the pictures nothing.
            give_back(claim)
            raise
        seconds = round(time.monotonic() - claim.began, 3)
        logger.info("images_classified", count=len(claim.images), seconds=seconds, model=str(model.version))
    notify_images_done(claim.images)
    if any(image.batch_id for image in claim.images):
        finish_batches()
    return len(claim.images)


def batches_of(claim: Claim) -> list[str]:
    return sorted({str(image.batch_id) for image in claim.images if image.batch_id})


def classify_batch(claim: Claim, model: LoadedModel) -> None:
    """Prepare the images in threads, predict them in one call, and write what came out."""
    prepared: list[tuple[CellImage, PreparedCell]] = []
    with ThreadPoolExecutor(max_workers=settings.MODEL_THREADS) as threads:
        # A thread of its own costs more than it saves where there is one at a time.
        side_by_side = threads.map if min(settings.MODEL_THREADS, len(claim.images)) > 1 else map
        readings = side_by_side(lambda image: prepare(claim, image, model.predictor), claim.images)
        for image, reading in zip(claim.images, readings, strict=True):
            if isinstance(reading, str):
                fail(claim, image, reading)
            elif isinstance(reading, Exception):
                count_fault(claim, image, "unreadable_image", reading)
            else:
                prepared.append((image, reading))
    complete_all(claim, model.version, predict(claim, model.predictor, prepared))


def prepare(claim: Claim, image: CellImage, predictor: "Predictor") -> "PreparedCell | str | Exception":
    """Read, check and prepare one image: ready for the model, the code of a permanent failure, or a fault."""
    try:
        content = content_of(claim, image)
        if sha256(content).hexdigest() != image.stored_sha256:
            return "stored_file_altered"
        # Drawn from the pixels that are decoded already.
        cell = predictor.prepare(content, shown_side=thumbnails.SIDE)
        thumbnail = None if claim.store_takes_nothing.is_set() else thumbnails.of_prepared(cell)
        if thumbnail and thumbnails.store(image, thumbnail):
            image.has_thumbnail = True
        elif thumbnail:
            # The sweep makes it, and those of its neighbours.
            claim.store_takes_nothing.set()
        return cell
    except FileNotFoundError:
        return "stored_file_missing"
    except UnreadableImage:
        return "unreadable_image"
    except StorageUnavailable:
        # No picture's fault: the claim is given back, and the sweep wakes a worker later.
        raise
    # Whatever a decoder throws at one picture must not reach its neighbours.
    except Exception as error:  # noqa: BLE001
        return error


def content_of(claim: Claim, image: CellImage) -> bytes:
    """The stored picture. Raises StorageUnavailable where the store is away, from then on for every image of the claim,
    and OSError where it works and only this picture can't be read.
    """
    if claim.store_is_away.is_set():
        raise StorageUnavailable
    try:
        return read(image)
    except StorageUnavailable:
        if claim.store_is_away.is_set() or not private_files().works():
            claim.store_is_away.set()
            raise
    try:
        # The store works: it may be over by now.
        return read(image)
    except StorageUnavailable as error:
        message = "The store works, and does not give this picture."
        raise OSError(message) from error


def read(image: CellImage) -> bytes:
    with image.file.open("rb") as stored:
        content: bytes = stored.read()
    return content


def predict(
    claim: Claim, predictor: "Predictor", prepared: "Sequence[tuple[CellImage, PreparedCell]]"
) -> "list[tuple[CellImage, CellPrediction]]":
    """Predict all at once; if that raises, one by one, so that one picture's fault stays its own."""
    if not prepared:
        return []
    images, cells = zip(*prepared, strict=True)
    try:
        return list(zip(images, predictor.predict(cells), strict=True))
    except Exception as error:  # noqa: BLE001
        if len(prepared) == 1:
            count_fault(claim, images[0], "prediction_failed", error)
            return []
    return [done for pair in prepared for done in predict(claim, predictor, [pair])]


def complete_all(claim: Claim, version: ModelVersion, predicted: "list[tuple[CellImage, CellPrediction]]") -> None:
    """Complete all at once; if the database refuses a row, one by one, so that one row's fault stays its own."""
    if not predicted:
        return
    try:
        complete(claim, version, predicted)
    except (IntegrityError, DataError) as error:
        if len(predicted) == 1:
            count_fault(claim, predicted[0][0], "prediction_failed", error)
            return
        for pair in predicted:
            complete_all(claim, version, [pair])


@transaction.atomic
def complete(claim: Claim, version: ModelVersion, predicted: "list[tuple[CellImage, CellPrediction]]") -> None:
    """Move the images that are still held, and write predictions for exactly those that moved."""
    wanted = [image.pk for image, _ in predicted]
    abstain_below = dict(STILL_HELD.rows(token=claim.token, images=wanted))
    held = list(abstain_below)
    if lost := len(predicted) - len(held):
        logger.warning("claim_lost", images=lost)
    drawn = [image.pk for image, _ in predicted if image.has_thumbnail]
    if COMPLETE.update(token=claim.token, images=held, drawn=drawn) != len(held):
        message = "The rows that were locked are not the rows that moved."
        raise RuntimeError(message)
    # After a roll-back to an older model its prediction may be there already: it stands.
    known = {pk for pk, model in THEIR_PREDICTIONS.rows(images=held) if model == version.pk}
    new = [pair for pair in predicted if pair[0].pk in abstain_below and pair[0].pk not in known]
    PREDICTIONS.insert(
        *(as_row(image, version, held_back(prediction, abstain_below[image.pk])) for image, prediction in new)
    )
    announce_classified(held, version)
    record_classified([image for image, _ in new], version)
    worker_counts.count(counted(claim, version, [pair for pair in predicted if pair[0].pk in abstain_below], known))


def counted(
    claim: Claim, version: ModelVersion, completed: "list[tuple[CellImage, CellPrediction]]", known: set[UUID]
) -> dict[worker_counts.Figure, float]:
    """What a completion adds to the running totals: its predictions, and how long its images waited and ran."""
    figures: defaultdict[worker_counts.Figure, float] = defaultdict(float)
    for image, prediction in completed:
        if image.pk not in known:
            figures["predictions", str(version.pk), prediction.label or "unidentified"] += 1
    ran = [time.monotonic() - claim.began] * len(completed)
    figures.update(worker_counts.seconds_counted("run", "", ran))
    for priority in Priority:
        waited = [waited_seconds(image) for image, _ in completed if image.priority == priority]
        figures.update(worker_counts.seconds_counted("wait", priority.name.lower(), waited))
    return figures


def waited_seconds(image: CellImage) -> float:
    """From being queued to the claim that is held now, which began by the database's clock: no worker's matters."""
    if image.claim_expires_at is None:
        return 0.0
    claimed_at = image.claim_expires_at - timedelta(seconds=settings.CLAIM_SECONDS)
    return max(0.0, (claimed_at - image.queued_at).total_seconds())


def as_row(image: CellImage, version: ModelVersion, prediction: "CellPrediction") -> Prediction:
    heat_map = prediction.heat_map
    return Prediction(
        image=image,
        model_version=version,
        label=prediction.label or "",
        suggestion=prediction.suggestion or "",
        confidence=prediction.confidence,
        probabilities=prediction.probabilities,
        conformal_set=list(prediction.conformal_set),
        abstained=prediction.abstained,
        reason_code=prediction.reason_code or "",
        reason=prediction.reason or "",
        ood_score=prediction.ood_score,
        box=list(prediction.box) if prediction.box else None,
        heat_map=None if heat_map is None else [[round(float(value), 3) for value in row] for row in heat_map],
        leukocytes=[{**vars(leukocyte), "box": list(leukocyte.box)} for leukocyte in prediction.leukocytes],
        duration_ms=prediction.duration_ms,
    )


def locked(images: CellImageQuerySet) -> list[UUID]:
    """Lock the rows, in the order in which a batch that is paused or cancelled locks them: so neither waits for ever.

    A claim needs no order: it skips what somebody holds.
    """
    return list(images.order_by("pk").select_for_update().values_list("pk", flat=True))


def move_held(claim: Claim, images: Sequence[CellImage], target: ImageStatus, **changes: Any) -> int:
    """Move images out of this claim; nothing happens to one that the claim no longer holds."""
    held = CellImage.objects.filter(claim_token=claim.token, pk__in=[image.pk for image in images])
    return move(held, source=ImageStatus.CLAIMED, target=target, **changes)


@transaction.atomic
def fail(claim: Claim, image: CellImage, code: str, **changes: Any) -> None:
    if move_held(claim, [image], ImageStatus.FAILED, failure_code=code, **changes):
        announce_failed([image.pk])
        record_failed([image.pk], code)
        worker_counts.count({("failures", code): 1})
        logger.warning("image_failed", image=str(image.pk), code=code)


def count_fault(claim: Claim, image: CellImage, code: str, error: Exception) -> None:
    """A fault that may pass: back into the queue, or failed with `code` when it was the third."""
    faults = image.faults + 1
    logger.warning("image_fault", image=str(image.pk), code=code, error=type(error).__name__, faults=faults)
    if faults >= MAX_FAULTS:
        fail(claim, image, code, faults=faults)
    else:
        move_held(claim, [image], ImageStatus.QUEUED, faults=faults)


@transaction.atomic
def give_back(claim: Claim) -> None:
    """Put back whatever is still held, as if it had never been claimed."""
    locked(CellImage.objects.filter(claim_token=claim.token, status=ImageStatus.CLAIMED))
    move_held(claim, claim.images, ImageStatus.QUEUED, attempts=F("attempts") - 1)


@transaction.atomic
def fail_lost() -> list[CellImage]:
    """Fail the images whose worker was lost for the third time while it held nothing else, and return them."""
    expired = CellImage.objects.expired().filter(claimed_alone=True, faults__gte=MAX_FAULTS - 1)
    lost = list(expired.order_by("pk").select_for_update())
    move(
        expired.filter(pk__in=[image.pk for image in lost]),
        source=ImageStatus.CLAIMED,
        target=ImageStatus.FAILED,
        failure_code="worker_lost",
        faults=F("faults") + 1,
    )
    announce_failed({image.pk for image in lost})
    record_failed({image.pk for image in lost}, "worker_lost")
    worker_counts.count({("failures", "worker_lost"): len(lost)})
    return lost


@transaction.atomic
def take_back(expired: CellImageQuerySet, **changes: Any) -> int:
    held = locked(expired)
    return move(expired.filter(pk__in=held), source=ImageStatus.CLAIMED, target=ImageStatus.QUEUED, **changes)


def sweep_expired_claims() -> int:
    """Take back the images of workers that are gone, and wake the workers that are there.

    Only a worker lost while it held a single image speaks against that image. Returns how many were taken back.
    """
    expired = CellImage.objects.expired()
    lost = fail_lost()
    suspects = take_back(expired.filter(claimed_alone=True), faults=F("faults") + 1)
    others = take_back(expired)
    notify_images_done(lost)
    if freed := len(lost) + suspects + others:
        worker_counts.count({("claims_expired",): freed})
        logger.warning("claims_expired", requeued=suspects + others, failed=len(lost))
    if anything_waits():
        send_wake_up()
    else:
        thumbnails.make_missing()
    return freed
