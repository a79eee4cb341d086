"""Registers model bundles and decides which one is active: explicit, audited, and never by itself over another."""

from pathlib import Path

from django.conf import settings
from django.db import transaction

from accounts import audit
from accounts.models import User
from classifier.active_model import verified_card
from classifier.errors import Conflict, InvalidInput
from classifier.models import ModelVersion
from ml.model_card import verify_bundle


@transaction.atomic
def register_bundle(bundle: Path) -> ModelVersion:
    """Register a bundle after checking its files; it becomes active only where no version is.

    Raises ml.errors.ModelUnavailable, or Conflict (model_version_changed) when the same name and version were
    registered with another file, or InvalidInput (bundle_elsewhere) when workers would not find it.
    """
    card = verify_bundle(bundle)
    if bundle.resolve() != Path(settings.MODEL_BUNDLES).resolve() / f"{card.name}-{card.version}":
        message = f"Put the bundle into the folder of bundles first, as {card.name}-{card.version}."
        raise InvalidInput("bundle_elsewhere", message)
    version = ModelVersion.objects.filter(name=card.name, version=card.version).first()
    if version is None:
        version = ModelVersion.objects.create(
            name=card.name,
            version=card.version,
            sha256=card.sha256,
            labels=list(card.labels),
            preprocessing_version=card.preprocessing_version,
            metrics=card.metrics,
        )
        audit.record(action="model_registered", actor=None, target=version, sha256=version.sha256)
    if version.sha256 != card.sha256:
        message = f"{version} is registered with another model file. A changed model needs a new version."
        raise Conflict("model_version_changed", message)
    if not ModelVersion.objects.filter(active=True).exists():
        activate_version(actor=None, version=version)
    return version


@transaction.atomic
def activate_version(*, actor: User | None, version: ModelVersion) -> None:
    """Make this version the one that new images are classified with.

    Raises ml.errors.ModelUnavailable when its files are not what was registered: nothing changes then.
    """
    verified_card(version)
    replaced = ModelVersion.objects.select_for_update().filter(active=True).exclude(pk=version.pk).first()
    ModelVersion.objects.filter(active=True).exclude(pk=version.pk).update(active=False)
    ModelVersion.objects.filter(pk=version.pk).update(active=True)
    version.active = True
    audit.record(action="model_activated", actor=actor, target=version, replaced=str(replaced.pk) if replaced else None)
