"""A bundle with eight views goes the whole way: registered, tried on a case, activated, serving."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from accounts.models import User
from classifier import model_trial, pipeline, services, tasks
from classifier.models import Case, CellImage, ModelTrial, ModelVersion, Prediction, TrialPrediction
from ml.model_card import CARD_FILE, read_card, shipped_bundle
from tests.pictures import jpeg_of_cell

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]
NUMBER = "9.0.0+0123abcd"


@pytest.fixture(autouse=True)
def no_tried_model_left() -> Iterator[None]:
    yield
    model_trial.forget_model()


@pytest.fixture
def bundles(db: None, settings: Any, tmp_path: Path) -> Path:
    """A folder of bundles with the shipped one, registered and active."""
    settings.MODEL_BUNDLES = tmp_path / "bundles"
    shutil.copytree(shipped_bundle(), settings.MODEL_BUNDLES / shipped_bundle().name)
    call_command("register_model", str(settings.MODEL_BUNDLES / shipped_bundle().name))
    return Path(settings.MODEL_BUNDLES)


def put_bundle(bundles: Path, **changes: Any) -> Path:
    """The shipped bundle under another number, as `adapt` leaves one."""
    name = read_card(shipped_bundle()).name
    bundle = Path(shutil.copytree(shipped_bundle(), bundles / f"{name}-{NUMBER}"))
    values = json.loads((bundle / CARD_FILE).read_text())
    (bundle / CARD_FILE).write_text(json.dumps({**values, "version": NUMBER, **changes}))
    return bundle


def test_an_adapted_bundle_with_eight_views_is_tried_activated_and_serves(
    bundles: Path, reader: User, case: Case, make_image: MakeImage, sign_in: SignIn
) -> None:
    from ml.predictor import load_predictor

    bundle = put_bundle(bundles, views=8)
    call_command("register_model", str(bundle))
    version = ModelVersion.objects.get(version=NUMBER)
    images = [make_image(content=jpeg_of_cell(seed)) for seed in (1, 2, 3)]
    expected = load_predictor(bundle)
    one_side = dataclasses.replace(expected.card, views=1)

    def said_by_eight(image: CellImage) -> float:
        with image.file.open("rb") as stored:
            return expected.predict([expected.prepare(stored.read())])[0].confidence

    assert pipeline.classify_queued() == 3
    trial = services.try_model(actor=reader, case=case, model_version=version)
    while ModelTrial.objects.filter(finished_at=None).exists():
        tasks.classify_queued()
    trial.refresh_from_db()
    assert trial.failure_code == ""
    tried = {row.image_id: row.confidence for row in TrialPrediction.objects.filter(trial=trial)}
    assert tried == {image.pk: pytest.approx(said_by_eight(image), abs=1e-4) for image in images}

    call_command("activate_model", version.name, NUMBER)
    new = [make_image(content=jpeg_of_cell(seed)) for seed in (4, 5)]
    assert pipeline.classify_queued() == 2
    for image in new:
        prediction = Prediction.objects.get(image=image)
        assert prediction.model_version == version
        assert prediction.confidence == pytest.approx(said_by_eight(image), abs=1e-4)
    # Of one side it would have said something else: so it did look from eight.
    of_eight = [said_by_eight(image) for image in (*images, *new)]
    expected.card = one_side
    assert of_eight != pytest.approx([said_by_eight(image) for image in (*images, *new)], abs=2e-4)

    pages = [sign_in(reader).get(reverse("model", args=[each.pk])) for each in ModelVersion.objects.order_by("version")]
    texts = [re.sub(r"\s+", " ", page.content.decode()) for page in pages]
    assert ["each cell seen from eight sides" in text for text in texts] == [False, True]


def test_a_bundle_with_another_number_of_views_is_not_registered(bundles: Path) -> None:
    with pytest.raises(CommandError, match="does not fit this version"):
        call_command("register_model", str(put_bundle(bundles, views=4)))
    assert ModelVersion.objects.count() == 1
