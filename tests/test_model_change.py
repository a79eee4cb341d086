"""Another model is made active while a worker is at work: what it began bears the name of the model that did it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings

from classifier import claims, pipeline
from classifier.model_registry import activate_version, register_bundle
from classifier.models import CellImage, ModelVersion
from tests.pictures import jpeg_of_cell


@pytest.fixture
def older(model_version: ModelVersion) -> ModelVersion:
    return register_bundle(Path(settings.MODEL_BUNDLES) / "hematovision-mobilenetv2-1.0.0")


def test_micro_batch_that_began_with_the_older_model_ends_with_it(
    make_image: Callable[..., CellImage], model_version: ModelVersion, older: ModelVersion
) -> None:
    activate_version(actor=None, version=older)
    first, second = make_image(content=jpeg_of_cell(5)), make_image(content=jpeg_of_cell(6))
    model = pipeline.load_model()
    claim = claims.claim_batch(1)

    activate_version(actor=None, version=model_version)
    pipeline.classify_batch(claim, model)
    pipeline.classify_queued()

    assert first.predictions.get().model_version == older
    assert second.predictions.get().model_version == model_version
    expected = model.predictor.predict([model.predictor.prepare(first.file.open().read())])[0]
    assert first.predictions.get().confidence == pytest.approx(expected.confidence, abs=1e-6)
