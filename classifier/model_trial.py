"""The worker's side of a trial: small steps, only while nothing is queued, and each of them can be taken twice.

What was tried stands in the rows, so a worker that is killed loses one step, and two that take the same step write the
same rows: the second one's are dropped.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from accounts import audit
from classifier.abstention import held_back, thresholds_of
from classifier.active_model import bundle_of, signature_of, verified_card
from classifier.errors import StorageUnavailable
from classifier.models import CaseStatus, CellImage, ModelTrial, ModelVersion, TrialPrediction
from classifier.pipeline import LoadedModel
from classifier.storage import private_files
from classifier.trials import not_tried_yet
from classifier.wakeup import send_wake_up
from ml.errors import ModelUnavailable, UnreadableImage

if TYPE_CHECKING:
    from ml.predictor import CellPrediction, Predictor, PreparedCell

logger = structlog.get_logger(__name__)
STEP = 8  # images: a picture that is uploaded meanwhile waits for no more than these
EXPIRES_AFTER = timedelta(days=1)
NOT_TRIED = "The stored picture could not be read, or the tried model could not process it."

tried_model: LoadedModel | None = None
loading = threading.Lock()


def continue_trial() -> int:
    """Take one step of the oldest trial that waits; returns how many images were tried.

    Nothing is done while an image is queued. A trial whose model can't be loaded ends with the code of why.
    """
    if CellImage.objects.claimable().exists():
        return 0
    give_up_on_old_trials()
    trial = waiting_trials().select_related("model_version", "case").order_by("requested_at", "id").first()
    if trial is None:
        forget_model()
        return 0
    if trial.case.status == CaseStatus.VOID:
        finish(trial, "case_void")
        return 0
    try:
        model = load_tried_model(trial.model_version)
    except ModelUnavailable as error:
        finish(trial, error.code)
        return 0
    images = list(not_tried_yet(trial)[:STEP])
    if images:
        write(trial, images, model.predictor)
    if len(images) < STEP:
        finish(trial)
    if is_waiting():
        send_wake_up()
    return len(images)


def waiting_trials() -> QuerySet[ModelTrial]:
    return ModelTrial.objects.filter(finished_at=None)


def is_waiting() -> bool:
    return waiting_trials().exists()


def wake_for_trials() -> None:
    """Wake the workers if a trial waits: its last step may have died with its worker."""
    if is_waiting():
        send_wake_up()


def give_up_on_old_trials() -> None:
    """A trial that kills its worker at every step, or never gets its turn, must not stay for ever."""
    old = waiting_trials().filter(requested_at__lt=Now() - EXPIRES_AFTER)
    if count := old.update(finished_at=Now(), failure_code="trial_expired"):
        logger.warning("trials_expired", trials=count)


def finish(trial: ModelTrial, failure_code: str = "") -> None:
    """Guarded: whoever comes second changes nothing."""
    with transaction.atomic():
        ended = waiting_trials().filter(pk=trial.pk).update(finished_at=Now(), failure_code=failure_code)
        if ended:
            audit.record(
                action="model_trial_finished",
                actor=None,
                target=trial.case,
                laboratory=trial.case.laboratory_id,
                trial=str(trial.pk),
                code=failure_code,
            )
    if ended:
        logger.info("trial_finished", trial=str(trial.pk), code=failure_code)


def load_tried_model(version: ModelVersion) -> LoadedModel:
    """The model of the version, kept beside the active one until no trial waits. Raises ModelUnavailable."""
    global tried_model  # noqa: PLW0603 - one tried model a process is the point
    with loading:
        verified_card(version)
        signature = signature_of(bundle_of(version))
        if tried_model is None or (tried_model.version, tried_model.signature) != (version, signature):
            # The model runtime is heavy and belongs to the worker alone.
            from ml.predictor import load_predictor

            predictor = load_predictor(bundle_of(version), threads=settings.MODEL_THREADS)
            tried_model = LoadedModel(version, signature, predictor)
        return tried_model


def forget_model() -> None:
    global tried_model  # noqa: PLW0603
    tried_model = None


def write(trial: ModelTrial, images: Sequence[CellImage], predictor: "Predictor") -> None:
    """Try the images and write a row for each; one that can't be tried says so, with an empty conformal set."""
    abstain_below = thresholds_of([image.pk for image in images])
    rows = [
        as_row(trial, image, held_back(prediction, abstain_below[image.pk]))
        if prediction
        else as_not_tried(trial, image)
        for image, prediction in predicted(predictor, images)
    ]
    TrialPrediction.objects.bulk_create(rows, ignore_conflicts=True)


def predicted(predictor: "Predictor", images: Sequence[CellImage]) -> "list[tuple[CellImage, CellPrediction | None]]":
    """Prepare in threads and predict all at once; if that raises, one by one, with None for one that can't be tried."""
    try:
        with ThreadPoolExecutor(max_workers=settings.MODEL_THREADS) as threads:
            cells = list(threads.map(lambda image: prepared(image, predictor), images))
        return list(zip(images, predictor.predict(cells), strict=True))
    except Exception as error:
        if isinstance(error, StorageUnavailable) and not private_files().works():
            # No picture's fault: the trial goes on at a later step.
            raise
        if len(images) == 1:
            logger.warning("trial_fault", image=str(images[0].pk), error=type(error).__name__)
            return [(images[0], None)]
    return [done for image in images for done in predicted(predictor, [image])]


def prepared(image: CellImage, predictor: "Predictor") -> "PreparedCell":
    """The stored picture, checked and ready for the model. Raises UnreadableImage and whatever a decoder raises."""
    with image.file.open("rb") as stored:
        content = stored.read()
    if sha256(content).hexdigest() != image.stored_sha256:
        raise UnreadableImage("stored_file_altered", NOT_TRIED)
    return predictor.prepare(content)


def as_row(trial: ModelTrial, image: CellImage, prediction: "CellPrediction") -> TrialPrediction:
    return TrialPrediction(
        trial=trial,
        image=image,
        label=prediction.label or "",
        suggestion=prediction.suggestion or "",
        confidence=prediction.confidence,
        conformal_set=list(prediction.conformal_set),
        abstained=prediction.abstained,
        reason=prediction.reason or "",
    )


def as_not_tried(trial: ModelTrial, image: CellImage) -> TrialPrediction:
    return TrialPrediction(trial=trial, image=image, confidence=0.0, conformal_set=[], abstained=True, reason=NOT_TRIED)
