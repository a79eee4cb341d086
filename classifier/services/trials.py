"""Asking for a trial: a model version that is not active, on the images of one case. It changes nothing that counts."""

from django.db import IntegrityError, transaction

from accounts import audit
from accounts.models import User
from accounts.roles import Verb
from classifier.errors import Conflict, InvalidInput, NotAllowed
from classifier.models import Case, ModelTrial, ModelVersion
from classifier.services.permission import require, require_editable
from classifier.trials import tried_images
from classifier.wakeup import wake_workers

MAY_TRY = (Verb.RELEASE, Verb.ADMINISTER)


def may_try(user: User) -> bool:
    """Whether somebody may try a model: a reader or an administrator of the laboratory."""
    return any(user.may(verb) for verb in MAY_TRY)


def try_model(*, actor: User, case: Case, model_version: ModelVersion) -> ModelTrial:
    """Ask the workers to try the version on what the case holds now; a trial that waits already is that one.

    Raises NotAllowed; InvalidInput (model_is_active, nothing_to_try); Conflict (case_released, case_void).
    """
    if not may_try(actor):
        raise NotAllowed("not_allowed", "Only a reader or an administrator of the laboratory tries a model.")
    require(actor, Verb.SEE, case)
    require_editable(case)
    if model_version.active:
        message = "This version is the active one: its predictions are those that count. Choose another version."
        raise InvalidInput("model_is_active", message)
    waiting = ModelTrial.objects.filter(case=case, model_version=model_version, finished_at=None)
    if trial := waiting.first():
        return trial
    trial = ModelTrial(case=case, model_version=model_version, requested_by=actor)
    try:
        with transaction.atomic():
            trial.save(force_insert=True)
            if not tried_images(trial).exists():
                message = (
                    "No image of this case is classified yet, so there is nothing to compare with. Try again later."
                )
                raise InvalidInput("nothing_to_try", message)
            audit.record(
                action="model_trial_requested",
                actor=actor,
                target=case,
                trial=str(trial.pk),
                model=str(model_version.pk),
            )
            wake_workers()
    except IntegrityError as error:
        # Two people asked at the same moment.
        if first := waiting.first():
            return first
        message = "The trial could not be started. Reload the page and try again."
        raise Conflict("trial_not_started", message) from error
    return trial
