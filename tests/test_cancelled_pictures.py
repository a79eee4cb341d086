"""Pictures that no worker will ever take, because their batch was cancelled or can't go on, leave under the rule."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from prometheus_client.core import Metric

from accounts.models import AuditEvent, User
from classifier import batch_steps, claims, metrics, pipeline, services
from classifier.models import Batch, Case, CellImage, ImageStatus, ModelVersion, RemovedPicture, Void
from classifier.retention import consequence_of
from classifier.retention_steps import remove_due_pictures, remove_pictures_of
from classifier.waiting import image_waits
from tests.conftest import PASSWORD
from tests.handing_in import checked, classify_all
from tests.zips import cells

Sweep = Callable[[], int]
pytestmark = pytest.mark.django_db


@pytest.fixture
def sweep(lab_admin: User, django_capture_on_commit_callbacks: Any) -> Sweep:
    """Lets the machine remove what a rule of 30 days removes in 31; returns how many pictures went."""
    services.set_retention_rule(actor=lab_admin, keep_days=30, reason="Ours", seen=0)

    def sweep() -> int:
        with django_capture_on_commit_callbacks(execute=True):
            return remove_due_pictures(timezone.now() + timedelta(days=31))

    return sweep


def stored(case: Case) -> int:
    """How many originals of the case there are."""
    return sum(image.file.storage.exists(str(image.file.name)) for image in CellImage.objects.filter(case=case))


def is_emptied(case: Case) -> bool:
    return Case.objects.filter(pk=case.pk, emptied_at__isnull=False).exists()


def void_case_of(batch: Batch, reader: User) -> Case:
    services.void_case(actor=reader, case=batch.case, reason="Wrong patient")
    return batch.case


def images_on_hold() -> float:
    found: dict[str, Metric] = {family.name: family for family in metrics.queue()}
    (sample,) = found["hematovision_images_on_hold"].samples
    return sample.value


def test_pictures_of_a_cancelled_batch_go_with_those_of_its_signed_case(
    technologist: User, reader: User, model_version: ModelVersion, sweep: Sweep
) -> None:
    batch = checked(technologist, cells(4))
    pipeline.classify_batch(claims.claim_batch(1), pipeline.load_model())
    services.cancel_batch(actor=technologist, batch=batch)
    classified = CellImage.objects.select_related("case").get(status=ImageStatus.CLASSIFIED)
    services.review_image(actor=reader, image=classified, verdict="CORRECTED", final_label="lymphocyte")
    case = Case.objects.get(pk=batch.case_id)
    services.release_report(actor=reader, case=case, password=PASSWORD, reason="one cell")

    assert consequence_of(case.laboratory_id, 30, timezone.now() + timedelta(days=31)).pictures == 4
    assert sweep() == 4

    assert (stored(case), is_emptied(case)) == (0, True)
    (removal,) = AuditEvent.objects.filter(action="pictures_removed")
    assert set(removal.facts["images"]) == {str(pk) for pk in CellImage.objects.values_list("pk", flat=True)}
    assert Void.objects.filter(image__case=case, reason="batch cancelled").count() == 3
    assert sweep() == 0


def test_picture_that_a_worker_brings_back_to_a_cancelled_batch_goes_too(
    technologist: User, reader: User, model_version: ModelVersion, sweep: Sweep
) -> None:
    batch = checked(technologist, cells(3))
    held = claims.claim_batch(2)
    services.cancel_batch(actor=technologist, batch=batch)
    case = void_case_of(batch, reader)

    assert sweep() == 1
    assert (stored(case), is_emptied(case)) == (2, False)

    pipeline.give_back(held)
    batch_steps.sweep_batches()
    assert sweep() == 2
    assert (stored(case), is_emptied(case)) == (0, True)


def test_picture_that_a_worker_still_classifies_after_the_cancelling_goes_once_it_has(
    technologist: User, reader: User, model_version: ModelVersion, sweep: Sweep
) -> None:
    batch = checked(technologist, cells(2))
    held = claims.claim_batch(2)
    services.cancel_batch(actor=technologist, batch=batch)
    case = void_case_of(batch, reader)
    assert sweep() == 0

    pipeline.classify_batch(held, pipeline.load_model())

    assert sweep() == 2
    assert is_emptied(case)


def test_voided_picture_stays_while_a_worker_may_take_it(
    technologist: User, reader: User, model_version: ModelVersion, sweep: Sweep
) -> None:
    batch = checked(technologist, cells(2))
    for image in batch.images.select_related("case"):
        services.void_image(actor=reader, image=image, reason="Wrong picture")
    case = void_case_of(batch, reader)
    assert sweep() == 0

    classify_all()

    assert sweep() == 2
    assert is_emptied(case)


def test_picture_that_was_voided_while_its_batch_was_paused_goes(
    technologist: User, reader: User, model_version: ModelVersion, sweep: Sweep
) -> None:
    batch = checked(technologist, cells(2))
    services.pause_batch(actor=technologist, batch=batch)
    first = batch.images.select_related("case").order_by("turn")[0]
    services.void_image(actor=reader, image=first, reason="Wrong picture")
    services.resume_batch(actor=technologist, batch=batch)
    classify_all()
    case = void_case_of(batch, reader)

    assert sweep() == 2
    assert is_emptied(case)


def test_batch_that_rests_in_a_void_case_lets_nothing_go_whose_picture_is_removed(
    technologist: User, reader: User, model_version: ModelVersion, sweep: Sweep
) -> None:
    files = cells(2)
    first = checked(technologist, files, accession_number="A-1")
    services.pause_batch(actor=technologist, batch=first)
    second = checked(technologist, files, accession_number="A-1", asks_before_start=True)
    case = void_case_of(first, reader)
    assert sweep() == 2
    assert is_emptied(case)

    for batch in (second, first):
        services.cancel_batch(actor=technologist, batch=batch)

    assert not CellImage.objects.claimable().exists()
    assert set(CellImage.objects.values_list("cancelled", flat=True)) == {True}
    assert RemovedPicture.objects.count() == 2


def elsewhere(work: Callable[[], object]) -> object:
    """Do it on a connection of its own, that of another thread."""
    try:
        return work()
    finally:
        connection.close()


@pytest.fixture
def resting_twice(
    transactional_db: None, technologist: User, reader: User, model_version: ModelVersion
) -> tuple[Batch, Batch]:
    """Two batches of a void case with the same two pictures, of which neither runs."""
    files = cells(2)
    paused = checked(technologist, files, accession_number="A-1")
    services.pause_batch(actor=technologist, batch=paused)
    unstarted = checked(technologist, files, accession_number="A-1", asks_before_start=True)
    void_case_of(paused, reader)
    return paused, unstarted


def test_cancelling_waits_for_the_removal_and_lets_nothing_go_that_is_removed(
    resting_twice: tuple[Batch, Batch], technologist: User, lab_admin: User
) -> None:
    paused, unstarted = resting_twice
    rule = services.set_retention_rule(actor=lab_admin, keep_days=30, reason="Ours", seen=0)
    with ThreadPoolExecutor(1) as beside:
        with transaction.atomic():
            assert remove_pictures_of(paused.case_id, rule, timezone.now() + timedelta(days=31)) == 2
            cancelling = beside.submit(elsewhere, lambda: services.cancel_batch(actor=technologist, batch=unstarted))
            assert wait([cancelling], 0.3).not_done
        cancelling.result()

    assert set(CellImage.objects.values_list("status", "on_hold")) == {(ImageStatus.QUEUED, True)}
    assert not CellImage.objects.claimable().exists()


def test_removal_waits_for_the_cancelling_and_keeps_what_it_let_go(
    resting_twice: tuple[Batch, Batch], technologist: User, lab_admin: User
) -> None:
    paused, unstarted = resting_twice
    rule = services.set_retention_rule(actor=lab_admin, keep_days=30, reason="Ours", seen=0)
    later = timezone.now() + timedelta(days=31)
    with ThreadPoolExecutor(1) as beside:
        with transaction.atomic():
            services.cancel_batch(actor=technologist, batch=unstarted)
            assert CellImage.objects.filter(on_hold=False).count() == 2
            removing = beside.submit(elsewhere, lambda: remove_pictures_of(paused.case_id, rule, later))
            assert wait([removing], 0.3).not_done
        assert removing.result() == 0

    assert RemovedPicture.objects.count() == 0
    assert CellImage.objects.claimable().count() == 2


def test_cancelled_picture_is_waited_for_by_nobody(technologist: User, model_version: ModelVersion) -> None:
    batch = checked(technologist, cells(2))
    image = batch.images.order_by("turn")[0]
    services.pause_batch(actor=technologist, batch=batch)
    assert image_waits(technologist, image.pk)
    assert images_on_hold() == 2

    services.cancel_batch(actor=technologist, batch=batch)

    assert not image_waits(technologist, image.pk)
    assert images_on_hold() == 0
    assert CellImage.objects.queue_state().waiting == 0
