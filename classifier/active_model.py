"""The model version that is in use, and whether its files are what they were when it was registered.

The web process asks for the files only; the worker alone loads the model (`classifier.pipeline`).
"""

from contextlib import suppress
from pathlib import Path

from django.conf import settings

from accounts.built_statements import BuiltSelect
from classifier.models import ModelVersion
from ml.errors import ModelUnavailable
from ml.model_card import ModelCard, verify_bundle

Signature = tuple[tuple[str, int, int, int], ...]
# Asked at every turn of a worker: reading its figures would take ten times as long as finding it.
ACTIVE = BuiltSelect(ModelVersion.objects.filter(active=True).defer("labels", "metrics").order_by()[:1])
verified: dict[str, tuple[Signature, ModelCard | ModelUnavailable]] = {}


def active_version() -> ModelVersion:
    """The active model version. Raises ModelUnavailable where none was ever activated."""
    active = ACTIVE.one()
    if active is None:
        raise ModelUnavailable("model_missing", "No model is active. Register one with manage.py register_model.")
    return active


def bundle_of(version: ModelVersion) -> Path:
    return Path(settings.MODEL_BUNDLES) / version.bundle_name


def signature_of(bundle: Path) -> Signature:
    """Changes whenever a file of the bundle is replaced, removed or written to."""
    found = []
    for path in sorted(bundle.glob("*")):
        # A file may vanish between being listed and being looked at, while a bundle is replaced.
        with suppress(FileNotFoundError):
            state = path.stat()
            found.append((path.name, state.st_mtime_ns, state.st_size, state.st_ino))
    return tuple(found)


def verified_card(version: ModelVersion) -> ModelCard:
    """The card of the version's bundle, after its hash was checked (again whenever a file has changed).

    Raises ModelUnavailable: model_missing, model_altered or model_incompatible.
    """
    bundle = bundle_of(version)
    signature = signature_of(bundle)
    known = verified.get(version.bundle_name)
    if known is None or known[0] != signature:
        known = (signature, checked(bundle, version))
        verified[version.bundle_name] = known
    if isinstance(known[1], ModelUnavailable):
        raise known[1]
    return known[1]


def checked(bundle: Path, version: ModelVersion) -> ModelCard | ModelUnavailable:
    try:
        card = verify_bundle(bundle)
    except ModelUnavailable as error:
        return error
    if card.sha256 != version.sha256:
        return ModelUnavailable("model_altered", "The model file is not the one that was registered.")
    return card
