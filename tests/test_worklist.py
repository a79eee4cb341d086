"""The worklist: which cases each filter finds, alone and with others, and how many are in which state."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import User
from classifier import services
from classifier.models import Case, ModelVersion
from classifier.worklist import WorklistFilter, status_counts, worklist
from tests.built_cases import UNSURE, Build, a, builder
from tests.factories import image_in_state, prediction_of


@pytest.fixture
def older_model(model_version: ModelVersion) -> ModelVersion:
    return ModelVersion.objects.create(
        name="older", version="0.9", sha256="0" * 64, labels=model_version.labels, preprocessing_version="1"
    )


@pytest.fixture
def build(technologist: User, reader: User, model_version: ModelVersion) -> Build:
    return builder(technologist, reader, model_version)


def numbers(user: User, **wanted: Any) -> set[str]:
    return {case.accession_number for case in worklist(user, WorklistFilter(**wanted))}


# --- Filters, one by one ---------------------------------------------------------------------------------------


def test_everything_but_void_is_listed_of_ones_own_laboratory_only(reader: User, stranger: User, build: Build) -> None:
    build("A-1")
    services.void_case(actor=reader, case=build("A-2"), reason="Wrong patient")
    services.open_case(actor=stranger, accession_number="S-1")

    assert numbers(reader) == {"A-1"}
    assert numbers(reader, status="void") == {"A-2"}
    assert numbers(stranger) == {"S-1"}


@pytest.mark.parametrize("status", ["open", "in_review", "released", "amended", "corrected"])
def test_filter_by_status(status: str, reader: User, build: Build) -> None:
    for each in ("open", "in_review", "released", "amended", "corrected"):
        Case.objects.filter(pk=build(each).pk).update(status=each)

    assert numbers(reader, status=status) == {status}


def test_class_is_the_models_where_nobody_has_reviewed_and_the_readers_where_somebody_has(
    reader: User, build: Build
) -> None:
    build("model says so", a("basophil"))
    build("confirmed", a("basophil", final="basophil"))
    build("corrected to it", a("monocyte", final="basophil"))
    build("corrected away", a("basophil", final="monocyte"))
    build("unsure", {**UNSURE, "suggestion": "basophil"})
    build("void image", a("basophil", void=True))
    build("another class", a("neutrophil"))

    assert numbers(reader, cell_type="basophil") == {"model says so", "confirmed", "corrected to it"}


def test_class_of_a_failed_image_is_what_was_read_by_hand(reader: User, technologist: User, build: Build) -> None:
    case = build("by hand")
    image_in_state("reviewed", case=case, uploaded_by=technologist, final_label="basophil")

    assert numbers(reader, cell_type="basophil") == {"by hand"}


def test_newest_prediction_counts(reader: User, build: Build, older_model: ModelVersion) -> None:
    for number, then, now in (("became one", "monocyte", "basophil"), ("was one", "basophil", "monocyte")):
        case = build(number, a(then, confidence=0.5, model=older_model))
        prediction_of(case.images.get(), ModelVersion.objects.get(active=True), **a(now))

    assert numbers(reader, cell_type="basophil") == {"became one"}
    assert numbers(reader, confidence_below=0.9) == set()
    assert numbers(reader, model=older_model.pk) == set()
    assert numbers(reader, model=ModelVersion.objects.get(active=True).pk) == {"became one", "was one"}


def test_withdrawn_review_gives_the_class_back_to_the_model(reader: User, build: Build) -> None:
    case = build("withdrawn", a("monocyte", final="basophil"))
    services.review_image(actor=reader, image=case.images.get(), verdict="WITHDRAWN")

    assert numbers(reader, cell_type="basophil") == set()
    assert numbers(reader, cell_type="monocyte") == {"withdrawn"}
    assert numbers(reader, reviewer=reader.pk) == set()


def test_image_that_waits_again_has_no_class_yet(
    reader: User, technologist: User, build: Build, older_model: ModelVersion
) -> None:
    case = build("queued again", a("basophil", 0.5, model=older_model))
    services.requeue_image(actor=technologist, image=case.images.get())

    assert numbers(reader, cell_type="basophil") == set()
    assert numbers(reader, confidence_below=0.9) == set()


def test_unidentified_is_what_nobody_has_reviewed_yet(reader: User, build: Build) -> None:
    build("unsure", UNSURE)
    build("read since", {**UNSURE, "final": "basophil"})
    build("void image", {**UNSURE, "void": True})
    build("sure", a("monocyte"))
    build("waiting", {"status": "queued"})

    assert numbers(reader, unidentified=True) == {"unsure"}


def test_confidence_below_leaves_out_what_is_equal_or_void(reader: User, build: Build) -> None:
    build("low", a("monocyte", 0.59), a("monocyte", 0.99))
    build("equal", a("monocyte", 0.6))
    build("void image", a("monocyte", 0.3, void=True))
    build("reviewed", a("monocyte", 0.4, final="monocyte"))
    build("no images")

    assert numbers(reader, confidence_below=0.6) == {"low", "reviewed"}


def test_reviewer_is_the_one_whose_review_counts(reader: User, technologist: User, build: Build) -> None:
    build("reader", a("monocyte", final="monocyte"))
    build("technologist", a("monocyte", final="monocyte", by=technologist))
    build("void image", a("monocyte", final="monocyte", void=True))
    overruled = build("overruled", a("monocyte", final="monocyte"))
    services.review_image(actor=technologist, image=overruled.images.get(), verdict="CORRECTED", final_label="basophil")

    assert numbers(reader, reviewer=reader.pk) == {"reader"}
    assert numbers(reader, reviewer=technologist.pk) == {"technologist", "overruled"}


def test_assigned_to_me_to_somebody_or_to_nobody(reader: User, technologist: User, build: Build) -> None:
    services.assign_case(actor=technologist, case=build("mine"), reader=reader)
    services.assign_case(actor=technologist, case=build("hers"), reader=technologist)
    build("nobody's")

    assert numbers(reader, assigned="me") == {"mine"}
    assert numbers(reader, assigned="nobody") == {"nobody's"}
    assert numbers(reader, assigned=str(technologist.pk)) == {"hers"}


def test_days_are_both_included_in_the_current_time_zone(reader: User, build: Build, settings: Any) -> None:
    settings.TIME_ZONE = "Europe/Berlin"
    for number, moment in {
        "evening before": datetime(2026, 3, 1, 22, 59, tzinfo=UTC),
        "midnight": datetime(2026, 3, 1, 23, 0, tzinfo=UTC),
        "last second": datetime(2026, 3, 3, 22, 59, 59, tzinfo=UTC),
        "day after": datetime(2026, 3, 3, 23, 0, tzinfo=UTC),
    }.items():
        build(number, opened_at=moment)
    first, last = datetime(2026, 3, 2).date(), datetime(2026, 3, 3).date()

    with timezone.override("Europe/Berlin"):
        assert numbers(reader, opened_from=first, opened_to=last) == {"midnight", "last second"}
        assert numbers(reader, opened_from=first) == {"midnight", "last second", "day after"}
        assert numbers(reader, opened_to=last) == {"evening before", "midnight", "last second"}


# --- Filters together, and none that doubles a row ----------------------------------------------------------------


def test_class_confidence_and_model_are_asked_of_one_image(
    reader: User, build: Build, older_model: ModelVersion
) -> None:
    build("doubtful basophil", a("basophil", 0.5, model=older_model))
    build("two images", a("basophil", 0.95), a("monocyte", 0.5, model=older_model))

    assert numbers(reader, cell_type="basophil", confidence_below=0.7) == {"doubtful basophil"}
    assert numbers(reader, cell_type="basophil", model=older_model.pk) == {"doubtful basophil"}
    assert numbers(reader, confidence_below=0.7, model=older_model.pk) == {"doubtful basophil", "two images"}


def test_all_filters_narrow_together(reader: User, technologist: User, build: Build) -> None:
    version = ModelVersion.objects.get(active=True)
    cells = [a("basophil", 0.5, final="basophil"), {**UNSURE, "confidence": 0.4}]
    case = build("all of it", *cells)
    services.assign_case(actor=technologist, case=case, reader=reader)
    services.assign_case(actor=technologist, case=build("less", cells[0]), reader=reader)
    build("unassigned", *cells)
    today = timezone.localdate()
    every = {
        "status": "in_review",
        "cell_type": "basophil",
        "confidence_below": 0.6,
        "model": version.pk,
        "unidentified": True,
        "reviewer": reader.pk,
        "assigned": "me",
        "opened_from": today,
        "opened_to": today,
    }

    assert numbers(reader, **every) == {"all of it"}
    others = {
        "status": "open",
        "cell_type": "monocyte",
        "confidence_below": 0.3,
        "model": uuid.uuid4(),
        "reviewer": technologist.pk,
        "assigned": str(technologist.pk),
        "opened_from": today + timedelta(days=1),
        "opened_to": today - timedelta(days=1),
    }
    for name, other in others.items():
        assert numbers(reader, **every | {name: other}) == set(), name


def test_case_with_many_fitting_images_is_listed_once(reader: User, build: Build, older_model: ModelVersion) -> None:
    case = build("A-1", *[a("basophil", 0.5, final="basophil") for _ in range(3)], *[UNSURE, UNSURE])
    prediction_of(case.images.first(), older_model)  # type: ignore[arg-type]
    wanted = WorklistFilter(cell_type="basophil", confidence_below=0.9, unidentified=True, reviewer=reader.pk)

    assert list(worklist(reader, wanted)) == [case]


# --- Counts ----------------------------------------------------------------------------------------------------


def test_counts_by_status_and_unread_come_from_two_queries(
    reader: User, build: Build, django_assert_num_queries: Any
) -> None:
    long_ago = timezone.now() - timedelta(days=3)
    build("ready", a("monocyte"), opened_at=long_ago)
    build("also ready", a("monocyte"), {"status": "failed"}, {"status": "queued", "void": True})
    build("still waiting", a("monocyte"), {"status": "queued"}, opened_at=long_ago - timedelta(days=1))
    build("no images", opened_at=long_ago - timedelta(days=1))
    build("only void", a("monocyte", void=True))
    build("in review", a("monocyte", final="monocyte"), a("monocyte"))
    services.void_case(actor=reader, case=build("void", a("monocyte")), reason="Wrong patient")

    with django_assert_num_queries(2):
        counts = status_counts(reader)

    assert {status: n for status, n in counts.by_status.items() if n} == {"open": 5, "in_review": 1, "void": 1}
    assert (counts.not_void, counts.unread, counts.oldest_unread) == (6, 2, long_ago)
    assert numbers(reader, status="unread") == {"ready", "also ready"}


def test_counts_are_those_of_ones_own_laboratory(reader: User, stranger: User, operator: User, build: Build) -> None:
    build("A-1", a("monocyte"))

    for nobody in (stranger, operator):
        counts = status_counts(nobody)
        assert (counts.not_void, counts.unread, counts.oldest_unread) == (0, 0, None)
