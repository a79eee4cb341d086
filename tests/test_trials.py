"""Trying a model version on a case: it says what would be different, and changes nothing that counts."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import AuditEvent, User
from classifier import model_trial, pipeline, services, tasks
from classifier.errors import HematoVisionError
from classifier.laboratory_settings import rules_of, settings_of, start_cell_types
from classifier.model_registry import register_bundle
from classifier.models import Case, CellImage, ModelTrial, ModelVersion, Prediction, TrialPrediction
from classifier.tallies import tally_of
from classifier.trials import changed, comparison_of, progress_of
from ml.model_card import ARTIFACTS, shipped_bundle
from tests.factories import prediction_of
from tests.pictures import jpeg_of_cell, real_image_files

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]


@pytest.fixture
def older_version(model_version: ModelVersion) -> ModelVersion:
    """A second real model, registered and not active."""
    bundle = next(path for path in sorted(ARTIFACTS.glob("hematovision-*")) if path != shipped_bundle())
    return register_bundle(bundle)


@pytest.fixture(autouse=True)
def no_tried_model_left() -> Any:
    yield
    model_trial.forget_model()


def pictures(count: int) -> list[bytes]:
    files = real_image_files()[:count]
    return [file.read_bytes() for file in files] or [jpeg_of_cell(seed) for seed in range(count)]


def classified(make_image: MakeImage, count: int = 3) -> list[CellImage]:
    images = [make_image(content=content) for content in pictures(count)]
    while pipeline.classify_queued():
        pass
    return images


def finish_all() -> None:
    while ModelTrial.objects.filter(finished_at=None).exists():
        tasks.classify_queued()


def refused(**asked: Any) -> str:
    with pytest.raises(HematoVisionError) as caught:
        services.try_model(**asked)
    assert caught.value.message.endswith(".")
    return caught.value.code


# --- Asking ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["reader", "lab_admin"])
def test_reader_and_administrator_may_ask_and_it_is_in_the_trail(
    who: str, case: Case, make_image: MakeImage, older_version: ModelVersion, request: pytest.FixtureRequest
) -> None:
    classified(make_image, 1)
    actor = request.getfixturevalue(who)

    trial = services.try_model(actor=actor, case=case, model_version=older_version)

    event = AuditEvent.objects.get(action="model_trial_requested")
    assert (event.actor, event.target_id) == (actor, str(case.pk))
    assert event.facts == {"trial": str(trial.pk), "model": str(older_version.pk)}


@pytest.mark.parametrize("who", ["technologist", "auditor", "service_account", "stranger", "operator"])
def test_nobody_else_may_ask(
    who: str, case: Case, make_image: MakeImage, older_version: ModelVersion, request: pytest.FixtureRequest
) -> None:
    classified(make_image, 1)

    actor = request.getfixturevalue(who)

    assert refused(actor=actor, case=case, model_version=older_version) == "not_allowed"


def test_active_model_is_not_tried(reader: User, case: Case, model_version: ModelVersion) -> None:
    assert refused(actor=reader, case=case, model_version=model_version) == "model_is_active"


def test_case_without_a_classified_image_has_nothing_to_try(
    reader: User, case: Case, make_image: MakeImage, older_version: ModelVersion
) -> None:
    make_image()

    assert refused(actor=reader, case=case, model_version=older_version) == "nothing_to_try"
    assert not ModelTrial.objects.exists()


@pytest.mark.parametrize(("status", "code"), [("released", "case_released"), ("void", "case_void")])
def test_case_that_takes_no_images_takes_no_trial(
    status: str, code: str, reader: User, case: Case, older_version: ModelVersion
) -> None:
    Case.objects.filter(pk=case.pk).update(**{"status": status})
    case.refresh_from_db()

    assert refused(actor=reader, case=case, model_version=older_version) == code


def test_trial_that_waits_is_not_asked_for_twice(
    reader: User, lab_admin: User, case: Case, make_image: MakeImage, older_version: ModelVersion
) -> None:
    classified(make_image, 1)

    first = services.try_model(actor=reader, case=case, model_version=older_version)
    second = services.try_model(actor=lab_admin, case=case, model_version=older_version)

    assert first == second
    assert ModelTrial.objects.count() == 1


# --- The worker's side -----------------------------------------------------------------------------------------


def test_trial_says_of_each_image_what_the_tried_model_says_and_changes_nothing(
    reader: User, case: Case, make_image: MakeImage, older_version: ModelVersion
) -> None:
    images = classified(make_image, 4)
    before = (tally_of(case), list(Prediction.objects.order_by("pk").values()), list(CellImage.objects.values()))
    trial = services.try_model(actor=reader, case=case, model_version=older_version)

    finish_all()

    trial.refresh_from_db()
    assert trial.finished_at is not None
    assert trial.failure_code == ""
    from ml.predictor import load_predictor

    tried = load_predictor(ARTIFACTS / older_version.bundle_name)
    for image in images:
        with image.file.open("rb") as stored:
            expected = tried.predict([tried.prepare(stored.read())])[0]
        said = TrialPrediction.objects.get(trial=trial, image=image)
        assert (said.label, said.suggestion) == (expected.label or "", expected.suggestion or "")
        assert said.confidence == pytest.approx(expected.confidence, abs=1e-4)
        assert (said.abstained, said.conformal_set) == (expected.abstained, list(expected.conformal_set))
    assert (
        tally_of(case),
        list(Prediction.objects.order_by("pk").values()),
        list(CellImage.objects.values()),
    ) == before
    case.refresh_from_db()
    assert case.status == "open"


def test_trial_waits_while_an_image_is_queued(
    reader: User, case: Case, make_image: MakeImage, older_version: ModelVersion
) -> None:
    classified(make_image, 1)
    services.try_model(actor=reader, case=case, model_version=older_version)
    make_image()

    assert model_trial.continue_trial() == 0
    assert not TrialPrediction.objects.exists()
    assert tasks.classify_queued() == 1
    assert not TrialPrediction.objects.exists()
    assert tasks.classify_queued() == 1
    assert TrialPrediction.objects.count() == 1


def test_step_is_small_and_a_killed_worker_loses_only_its_step(
    reader: User, case: Case, make_image: MakeImage, older_version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_trial, "STEP", 2)
    classified(make_image, 5)
    trial = services.try_model(actor=reader, case=case, model_version=older_version)
    real_write = model_trial.write
    assert model_trial.continue_trial() == 2

    def killed(*_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(model_trial, "write", killed)
    with pytest.raises(SystemExit):
        model_trial.continue_trial()
    monkeypatch.setattr(model_trial, "write", real_write)

    trial.refresh_from_db()
    assert trial.finished_at is None
    assert progress_of(trial).tried == 2
    finish_all()
    assert (progress_of(trial).tried, progress_of(trial).total) == (5, 5)
    assert TrialPrediction.objects.count() == 5


def test_step_taken_twice_writes_each_image_once(
    reader: User, case: Case, make_image: MakeImage, older_version: ModelVersion
) -> None:
    images = classified(make_image, 3)
    trial = services.try_model(actor=reader, case=case, model_version=older_version)
    predictor = model_trial.load_tried_model(older_version).predictor

    for _ in range(2):
        model_trial.write(trial, images, predictor)

    assert TrialPrediction.objects.count() == 3


def test_sweep_wakes_the_workers_for_a_trial_whose_worker_was_lost(
    reader: User, case: Case, make_image: MakeImage, older_version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    classified(make_image, 1)
    services.try_model(actor=reader, case=case, model_version=older_version)
    sent: list[int] = []
    monkeypatch.setattr(model_trial, "send_wake_up", lambda: sent.append(1))

    tasks.sweep_expired_claims()

    assert sent == [1]


def test_trial_whose_model_is_gone_ends_with_a_code_and_a_sentence(
    reader: User, case: Case, make_image: MakeImage, older_version: ModelVersion, sign_in: SignIn
) -> None:
    classified(make_image, 1)
    ModelVersion.objects.filter(pk=older_version.pk).update(version="9.9.9")
    older_version.refresh_from_db()
    trial = services.try_model(actor=reader, case=case, model_version=older_version)

    tasks.classify_queued()

    trial.refresh_from_db()
    assert trial.finished_at is not None
    assert trial.failure_code == "model_missing"
    assert "could not be tried" in page_of(sign_in(reader), trial)


def test_trial_that_never_ends_is_given_up_after_a_day(
    reader: User, case: Case, make_image: MakeImage, older_version: ModelVersion
) -> None:
    classified(make_image, 1)
    trial = services.try_model(actor=reader, case=case, model_version=older_version)
    ModelTrial.objects.update(requested_at=timezone.now() - timedelta(hours=25))

    tasks.classify_queued()

    trial.refresh_from_db()
    assert trial.failure_code == "trial_expired"


def test_trial_of_a_case_that_was_voided_is_given_up(
    reader: User, case: Case, make_image: MakeImage, older_version: ModelVersion
) -> None:
    classified(make_image, 1)
    trial = services.try_model(actor=reader, case=case, model_version=older_version)
    Case.objects.update(**{"status": "void"})

    tasks.classify_queued()

    trial.refresh_from_db()
    assert (trial.failure_code, TrialPrediction.objects.count()) == ("case_void", 0)


def test_picture_that_cannot_be_read_is_left_out_and_said(
    reader: User, case: Case, make_image: MakeImage, older_version: ModelVersion, sign_in: SignIn
) -> None:
    lost, _ = classified(make_image, 2)
    Path(lost.file.path).unlink()
    trial = services.try_model(actor=reader, case=case, model_version=older_version)

    finish_all()

    assert TrialPrediction.objects.get(image=lost).reason == model_trial.NOT_TRIED
    assert progress_of(trial).unusable == 1
    assert comparison_of(trial).total == 1
    assert "2 images were tried; 1 of them could not be tried" in page_of(sign_in(reader), trial)


def test_picture_that_was_altered_is_not_tried(
    reader: User, case: Case, make_image: MakeImage, older_version: ModelVersion
) -> None:
    (image,) = classified(make_image, 1)
    Path(image.file.path).write_bytes(jpeg_of_cell(7))
    services.try_model(actor=reader, case=case, model_version=older_version)

    finish_all()

    said = TrialPrediction.objects.get(image=image)
    assert (said.label, said.suggestion, said.conformal_set) == ("", "", [])


def test_trial_leaves_the_stored_files_alone(
    reader: User, case: Case, make_image: MakeImage, older_version: ModelVersion, settings: Any
) -> None:
    def stored() -> dict[str, int]:
        return {str(file): file.stat().st_mtime_ns for file in Path(settings.MEDIA_ROOT).rglob("*") if file.is_file()}

    classified(make_image, 2)
    before = stored()
    services.try_model(actor=reader, case=case, model_version=older_version)

    finish_all()

    assert TrialPrediction.objects.count() == 2
    assert stored() == before


def test_picture_that_breaks_the_tried_model_is_left_out_alone(
    reader: User, case: Case, make_image: MakeImage, older_version: ModelVersion
) -> None:
    from tests.test_pipeline import FaultyPredictor

    poison = make_image(content=jpeg_of_cell(1, (200, 224)))
    neighbour = make_image(content=jpeg_of_cell(2))
    while pipeline.classify_queued():
        pass
    trial = services.try_model(actor=reader, case=case, model_version=older_version)
    faulty: Any = FaultyPredictor(model_trial.load_tried_model(older_version).predictor, poison={200})

    model_trial.write(trial, [poison, neighbour], faulty)

    assert TrialPrediction.objects.get(image=poison).reason == model_trial.NOT_TRIED
    assert TrialPrediction.objects.get(image=neighbour).conformal_set


def test_threshold_of_the_laboratory_counts_for_the_tried_model_too(
    reader: User, lab_admin: User, case: Case, make_image: MakeImage, older_version: ModelVersion
) -> None:
    classified(make_image, 2)
    services.save_laboratory_settings(
        actor=lab_admin,
        target_count=100,
        uploader_may_release=True,
        abstain_below=0.999,
        time_zone="UTC",
        cell_types=start_cell_types(),
    )
    trial = services.try_model(actor=reader, case=case, model_version=older_version)

    finish_all()

    for said in TrialPrediction.objects.filter(trial=trial):
        assert (said.confidence < 0.999) is (said.label == "") or said.abstained


# --- What it shows ---------------------------------------------------------------------------------------------


@pytest.fixture
def finished_trial(
    reader: User, case: Case, make_image: MakeImage, model_version: ModelVersion, older_version: ModelVersion
) -> ModelTrial:
    """Six images: two stay lymphocytes, one becomes a monocyte, one unidentified, one identified, one stays unsure."""
    before = ["lymphocyte", "lymphocyte", "lymphocyte", "lymphocyte", "", ""]
    after = ["lymphocyte", "lymphocyte", "monocyte", "", "neutrophil", ""]
    images = [make_image("classified", name=f"cell-{place}.jpg") for place in range(6)]
    for image, label in zip(images, before, strict=True):
        said: dict[str, Any] = {} if label else {"label": "", "abstained": True, "reason": "The model is not sure."}
        prediction_of(image, model_version, **said)
    services.review_image(actor=reader, image=images[0], verdict="CONFIRMED")
    services.review_image(actor=reader, image=images[2], verdict="CORRECTED", final_label="monocyte")
    trial = services.try_model(actor=reader, case=case, model_version=older_version)
    for image, label in zip(images, after, strict=True):
        TrialPrediction.objects.create(
            trial=trial, image=image, label=label, confidence=0.9, conformal_set=["monocyte"], abstained=not label
        )
    ModelTrial.objects.update(finished_at=timezone.now())
    trial.refresh_from_db()
    return trial


def page_of(client: Client, trial: ModelTrial, query: str = "") -> str:
    response = client.get(reverse("case-trial", args=[trial.case_id]) + query)
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def test_comparison_counts_what_would_be_different(finished_trial: ModelTrial, case: Case) -> None:
    comparison = comparison_of(finished_trial)

    assert comparison.pairs == {
        ("lymphocyte", "lymphocyte"): 2,
        ("lymphocyte", "monocyte"): 1,
        ("lymphocyte", ""): 1,
        ("", "neutrophil"): 1,
        ("", ""): 1,
    }
    assert (comparison.total, comparison.changed) == (6, 3)
    assert (comparison.became_another, comparison.became_unidentified, comparison.became_identified) == (1, 1, 1)
    assert comparison.agreement == type(comparison.agreement)(reviewed=2, before=1, after=2)
    then, now = comparison.differentials(rules_of(settings_of(case.laboratory_id)))
    assert (then.n, now.n) == (4, 4)
    assert {cell.label: cell.n for cell in now.cells if cell.n} == {"neutrophil": 1, "lymphocyte": 2, "monocyte": 1}
    assert (then.unidentified, now.unidentified) == (2, 2)
    assert changed(finished_trial).count() == 3


def test_later_predictions_and_images_do_not_change_what_a_trial_found(
    finished_trial: ModelTrial, make_image: MakeImage, model_version: ModelVersion, older_version: ModelVersion
) -> None:
    before = comparison_of(finished_trial)

    prediction_of(make_image("classified"), model_version)
    prediction_of(CellImage.objects.order_by("uploaded_at")[1], older_version, label="monocyte")

    assert comparison_of(finished_trial) == before
    assert progress_of(finished_trial).total == 6


def test_void_image_leaves_the_trial(finished_trial: ModelTrial, reader: User) -> None:
    image = changed(finished_trial).get(before="lymphocyte", after="monocyte")

    services.void_image(actor=reader, image=image, reason="Another patient's.")

    assert (comparison_of(finished_trial).total, progress_of(finished_trial).total) == (5, 5)


def test_page_shows_the_table_both_differentials_and_the_changed_images(
    finished_trial: ModelTrial, reader: User, sign_in: SignIn
) -> None:
    page = page_of(sign_in(reader), finished_trial)

    assert "3 of 6 images would be something else" in page
    assert "1 would become unidentified" in page
    assert "1 that is unidentified would get a class" in page
    assert "AI suggestion - not verified" in page
    for image in changed(finished_trial):
        assert reverse("image", args=[image.pk]) in page


def test_unfinished_trial_shows_how_far_it_is(
    reader: User, case: Case, make_image: MakeImage, older_version: ModelVersion, sign_in: SignIn
) -> None:
    classified(make_image, 2)
    trial = services.try_model(actor=reader, case=case, model_version=older_version)

    assert "0 of 2" in page_of(sign_in(reader), trial)


def test_page_starts_a_trial_by_a_plain_form(
    reader: User, case: Case, make_image: MakeImage, older_version: ModelVersion, sign_in: SignIn
) -> None:
    classified(make_image, 1)
    client = sign_in(reader)
    address = reverse("case-trial", args=[case.pk])
    assert str(older_version) in client.get(address).content.decode()

    response = client.post(address, {"model_version": str(older_version.pk)})

    trial = ModelTrial.objects.get()
    assert (trial.requested_by, trial.model_version) == (reader, older_version)
    assert response.status_code == 302
    assert response["Location"].endswith(f"?trial={trial.pk}")


@pytest.mark.parametrize("typed", ["", "nonsense", "00000000-0000-0000-0000-000000000000"])
def test_page_refuses_a_version_that_does_not_exist(typed: str, reader: User, case: Case, sign_in: SignIn) -> None:
    response = sign_in(reader).post(reverse("case-trial", args=[case.pk]), {"model_version": typed})

    assert response.status_code == 400
    assert "Choose a model version" in response.content.decode()


def test_technologist_reads_the_trial_and_does_not_start_one(
    finished_trial: ModelTrial, technologist: User, sign_in: SignIn
) -> None:
    client = sign_in(technologist)
    address = reverse("case-trial", args=[finished_trial.case_id])

    assert "Start the trial" not in page_of(client, finished_trial)
    assert client.post(address, {"model_version": str(finished_trial.model_version_id)}).status_code == 403


def test_stranger_finds_no_trial(finished_trial: ModelTrial, stranger: User, sign_in: SignIn) -> None:
    client = sign_in(stranger)

    assert client.get(reverse("case-trial", args=[finished_trial.case_id])).status_code == 404
    assert client.post(reverse("case-trial", args=[finished_trial.case_id]), {}).status_code == 404
    assert str(finished_trial.model_version) not in client.get(reverse("trials")).content.decode()


def test_older_trial_is_found_and_that_of_another_case_is_not(
    finished_trial: ModelTrial, reader: User, make_image: MakeImage, sign_in: SignIn
) -> None:
    client = sign_in(reader)
    for _ in range(25):
        ModelTrial.objects.create(
            case=finished_trial.case,
            model_version=finished_trial.model_version,
            requested_by=reader,
            finished_at=timezone.now(),
        )
    other = services.open_case(actor=reader)

    assert "3 of 6 images would be something else" in page_of(client, finished_trial, f"?trial={finished_trial.pk}")
    assert client.get(reverse("case-trial", args=[other.pk]) + f"?trial={finished_trial.pk}").status_code == 404
    assert client.get(reverse("case-trial", args=[other.pk]) + "?trial=x").status_code == 404


def test_trials_sums_up_a_version_over_the_cases_of_the_laboratory(
    finished_trial: ModelTrial, reader: User, sign_in: SignIn
) -> None:
    again = ModelTrial.objects.create(
        case=finished_trial.case,
        model_version=finished_trial.model_version,
        requested_by=reader,
        finished_at=timezone.now(),
    )
    for said in TrialPrediction.objects.filter(trial=finished_trial):
        TrialPrediction.objects.create(
            trial=again,
            image=said.image,
            label=said.label,
            confidence=0.9,
            conformal_set=["x"],
            abstained=not said.label,
        )

    page = " ".join(sign_in(reader).get(reverse("trials")).content.decode().split())

    assert str(finished_trial.model_version) in page
    assert "3 of 6 images would be something else" in page, "a case tried twice counts once"
    assert finished_trial.case.accession_number in page


def test_trials_are_read_in_a_fixed_number_of_queries(
    finished_trial: ModelTrial, technologist: User, reader: User, sign_in: SignIn, django_assert_max_num_queries: Any
) -> None:
    client = sign_in(technologist)
    for _ in range(3):
        ModelTrial.objects.create(
            case=finished_trial.case,
            model_version=finished_trial.model_version,
            requested_by=reader,
            finished_at=timezone.now(),
        )

    with django_assert_max_num_queries(9):
        client.get(reverse("trials"))
    with django_assert_max_num_queries(12):  # one of them notes the look in the audit trail
        client.get(reverse("case-trial", args=[finished_trial.case_id]) + f"?trial={finished_trial.pk}")
