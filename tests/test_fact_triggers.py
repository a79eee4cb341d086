"""What the database itself refuses of facts, and that no migration loses it on the way there or back."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from structlog.testing import capture_logs

from accounts.audit_triggers import POSTGRESQL, SQLITE
from accounts.fact_triggers import install_fact_triggers
from accounts.models import User
from classifier import services, verdict_trigger
from classifier.models import CellImage, ModelVersion, Prediction, Review
from tests.conftest import FACT_TABLES
from tests.factories import prediction_of

MakeImage = Callable[..., CellImage]
OF_THE_TWO = ("classifier_prediction_", "classifier_review_")


@pytest.fixture
def migrated(db: None, tmp_path: Path) -> Iterator[BaseDatabaseWrapper]:
    """A database whose migrations may be walked: PostgreSQL takes it all back with the test, SQLite has a copy."""
    if connection.vendor == "postgresql":
        yield connection
        return
    copied = connection.copy()
    copied.settings_dict = {**connection.settings_dict, "NAME": str(tmp_path / "copy.sqlite3")}
    with (
        closing(sqlite3.connect(connection.settings_dict["NAME"])) as source,
        closing(sqlite3.connect(copied.settings_dict["NAME"])) as target,
    ):
        source.backup(target)
    try:
        for table in FACT_TABLES:
            install_fact_triggers(copied, table)
        yield copied
    finally:
        copied.close()


def triggers_in(database: BaseDatabaseWrapper) -> list[str]:
    with database.cursor() as cursor:
        cursor.execute(POSTGRESQL if database.vendor == "postgresql" else SQLITE)
        return sorted(name for name, *_ in cursor.fetchall())


def test_triggers_of_facts_survive_the_way_back_and_there_again(migrated: BaseDatabaseWrapper) -> None:
    newest = [key for key in MigrationExecutor(migrated).loader.graph.leaf_nodes() if key[0] == "classifier"]
    there = triggers_in(migrated)
    guards = [name for name in there if name.startswith(OF_THE_TWO) and not name.endswith("_agrees")]
    assert len(guards) == (2 if migrated.vendor == "postgresql" else 4)
    assert "classifier_review_verdict_agrees" in there

    MigrationExecutor(migrated).migrate([("classifier", "0008_trust")])
    assert [name for name in triggers_in(migrated) if name.startswith(OF_THE_TWO)] == guards
    MigrationExecutor(migrated).migrate(newest)
    assert triggers_in(migrated) == there


# --- A verdict and its prediction ---------------------------------------------------------------------------------


@pytest.fixture
def lymphocyte(make_image: MakeImage, model_version: ModelVersion) -> Prediction:
    return prediction_of(make_image("classified"), model_version)


def written(prediction: Prediction, reader: User, verdict: str, final_label: str, **changes: Any) -> Review:
    """A review written past the service, which would refuse it in words."""
    values = {"image": prediction.image, "prediction": prediction, "reader": reader, **changes}
    review = Review(verdict=verdict, final_label=final_label, **values)
    with transaction.atomic():
        review.save()
    return review


@pytest.mark.parametrize(
    ("verdict", "final_label", "fits"),
    [
        ("CONFIRMED", "lymphocyte", True),
        ("CONFIRMED", "monocyte", False),
        ("CORRECTED", "monocyte", True),
        ("CORRECTED", "lymphocyte", False),
        ("UNUSABLE", "", True),
        ("MANUAL", "lymphocyte", True),
        ("MANUAL", "monocyte", True),
    ],
)
def test_database_refuses_a_verdict_that_says_something_else_than_its_classes(
    verdict: str, final_label: str, fits: bool, lymphocyte: Prediction, reader: User
) -> None:
    if fits:
        assert written(lymphocyte, reader, verdict, final_label).pk
        return
    with pytest.raises(IntegrityError, match="a verdict agrees with the prediction"):
        written(lymphocyte, reader, verdict, final_label)
    with pytest.raises(IntegrityError, match="a verdict agrees"), transaction.atomic():
        Review.objects.bulk_create(
            [
                Review(
                    image=lymphocyte.image,
                    prediction=lymphocyte,
                    reader=reader,
                    verdict=verdict,
                    final_label=final_label,
                )
            ]
        )
    assert not Review.objects.exists()


def test_prediction_of_another_image_is_not_what_a_review_is_about(
    lymphocyte: Prediction, reader: User, make_image: MakeImage
) -> None:
    with pytest.raises(IntegrityError, match="a verdict agrees"):
        written(lymphocyte, reader, "CONFIRMED", "lymphocyte", image=make_image("classified"))


def test_what_a_model_gave_no_class_to_is_corrected_only(
    make_image: MakeImage, model_version: ModelVersion, reader: User
) -> None:
    unsure = prediction_of(make_image("classified"), model_version, label="", abstained=True, reason="Not sure.")

    with pytest.raises(IntegrityError):
        written(unsure, reader, "CONFIRMED", "lymphocyte")
    assert written(unsure, reader, "CORRECTED", "lymphocyte").pk


def test_reviews_of_before_that_disagree_are_counted_and_stay(lymphocyte: Prediction, reader: User) -> None:
    services.review_image(actor=reader, image=lymphocyte.image, verdict="CONFIRMED")
    if connection.vendor == "postgresql":
        # What waits to be checked at the end would keep the triggers from being changed.
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    editor: Any = SimpleNamespace(connection=connection)
    no_apps: Any = None
    verdict_trigger.remove(no_apps, editor)
    old = written(lymphocyte, reader, "CORRECTED", "lymphocyte")
    with capture_logs() as logs:
        verdict_trigger.install(no_apps, editor)

    assert [(line["event"], line["reviews"]) for line in logs] == [("reviews_disagree_with_their_predictions", 1)]
    assert Review.objects.filter(pk=old.pk, verdict="CORRECTED", final_label="lymphocyte").exists()
    with pytest.raises(IntegrityError):
        written(lymphocyte, reader, "CORRECTED", "lymphocyte")
