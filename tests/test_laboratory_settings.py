"""What a laboratory decides for itself: who may, what is refused, what is kept, and what it does to predictions."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import AuditEvent, Laboratory, User
from classifier import pipeline, services
from classifier.abstention import BELOW_LABORATORY_THRESHOLD, effect_of_thresholds, held_back, thresholds_of
from classifier.errors import HematoVisionError
from classifier.laboratory_form import TypedSettings
from classifier.laboratory_settings import changes_between, rules_of, settings_of, start_cell_types
from classifier.models import CellImage, LaboratorySettings, ModelVersion, Prediction
from classifier.services.laboratory import is_loinc
from tests.factories import prediction_of
from tests.pictures import jpeg_of_cell, real_image_files

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]


def save(actor: User, **changes: Any) -> LaboratorySettings:
    usual: dict[str, Any] = {
        "target_count": 100,
        "uploader_may_release": True,
        "abstain_below": None,
        "time_zone": "UTC",
        "cell_types": start_cell_types(),
    }
    return services.save_laboratory_settings(actor=actor, **usual | changes)


def with_rule(of: str, /, **changes: Any) -> list[dict[str, Any]]:
    return [rule | changes if rule["slug"] == of else rule for rule in start_cell_types()]


def refused(actor: User, **changes: Any) -> HematoVisionError:
    with pytest.raises(HematoVisionError) as caught:
        save(actor, **changes)
    assert caught.value.message.endswith(".")
    assert not LaboratorySettings.objects.exists()
    return caught.value


# --- The service -----------------------------------------------------------------------------------------------


def test_laboratory_begins_with_the_start_values(laboratory: Laboratory, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        settings = settings_of(laboratory.pk)

    rules = rules_of(settings)
    assert (rules.settings_version, rules.target_count) == (0, 100)
    neutrophil = rules.cell_types[0]
    assert (neutrophil.slug, neutrophil.range_low, neutrophil.range_high) == ("neutrophil", 50, 70)
    assert neutrophil.loinc == "26511-6"


def test_each_save_is_a_version_that_counts_from_then_on(lab_admin: User, laboratory: Laboratory) -> None:
    first = save(lab_admin, target_count=200)
    second = save(lab_admin, target_count=200, cell_types=with_rule("lymphocyte", range_high=45.0))

    assert (first.version, second.version) == (1, 2)
    assert settings_of(laboratory.pk) == second
    assert rules_of(settings_of(laboratory.pk)).cell_types[1].range_high == 45
    assert LaboratorySettings.objects.get(version=1).cell_types == start_cell_types()


def test_saving_what_counts_already_makes_no_version(lab_admin: User) -> None:
    first = save(lab_admin, target_count=200, based_on=0)

    assert save(lab_admin, target_count=200, based_on=0) == first


def test_trail_names_the_fields_and_no_value(lab_admin: User) -> None:
    cell_types = with_rule("monocyte", range_low=3.0)
    cell_types[0], cell_types[1] = cell_types[1], cell_types[0]

    saved = save(lab_admin, time_zone="Europe/Berlin", cell_types=cell_types)

    event = AuditEvent.objects.get(action="laboratory_settings_saved")
    assert (event.actor, event.target_id) == (lab_admin, str(saved.pk))
    assert event.facts == {
        "version": 1,
        "fields": ["time_zone", "cell_types.monocyte.range_low", "cell_types.order"],
    }


@pytest.mark.parametrize("who", ["technologist", "reader", "auditor", "service_account", "operator"])
def test_only_an_administrator_of_the_laboratory_saves(who: str, request: pytest.FixtureRequest) -> None:
    assert refused(request.getfixturevalue(who), target_count=50).code == "not_allowed"


def test_settings_of_another_laboratory_are_not_touched(
    lab_admin: User, other_laboratory: Laboratory, laboratory: Laboratory
) -> None:
    save(lab_admin, target_count=50)

    assert settings_of(other_laboratory.pk).version == 0
    assert settings_of(laboratory.pk).target_count == 50


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"target_count": 0}, "target_count_out_of_range", "target_count"),
        ({"target_count": 10_001}, "target_count_out_of_range", "target_count"),
        ({"abstain_below": -0.1}, "threshold_out_of_range", "abstain_below"),
        ({"abstain_below": 1.0}, "threshold_out_of_range", "abstain_below"),
        ({"abstain_below": float("nan")}, "threshold_out_of_range", "abstain_below"),
        ({"abstain_below": 0.5}, "threshold_below_model", "abstain_below"),
        ({"time_zone": "Mars/Olympus"}, "unknown_time_zone", "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "unknown_time_zone", "time_zone"),
        ({"cell_types": with_rule("monocyte", slug="blast")}, "unknown_cell_type", "cell_types"),
        ({"cell_types": with_rule("monocyte", slug="neutrophil")}, "cell_type_twice", "cell_types.neutrophil"),
        ({"cell_types": start_cell_types()[1:]}, "cell_type_missing", "cell_types"),
        (
            {"cell_types": with_rule("monocyte", range_low=9.0)},
            "range_upside_down",
            "cell_types.monocyte.range_low",
        ),
        (
            {"cell_types": with_rule("monocyte", range_high=101.0)},
            "range_out_of_bounds",
            "cell_types.monocyte.range_high",
        ),
        (
            {"cell_types": with_rule("monocyte", range_low=-1.0)},
            "range_out_of_bounds",
            "cell_types.monocyte.range_low",
        ),
        (
            {"cell_types": with_rule("monocyte", range_low=float("inf"))},
            "range_out_of_bounds",
            "cell_types.monocyte.range_low",
        ),
        ({"cell_types": with_rule("monocyte", loinc="26485-4")}, "loinc_malformed", "cell_types.monocyte.loinc"),
        ({"cell_types": with_rule("monocyte", loinc="monocytes")}, "loinc_malformed", "cell_types.monocyte.loinc"),
    ],
)
def test_what_can_not_be_used_is_refused_with_a_sentence_and_the_field(
    changes: dict[str, Any], code: str, field: str, lab_admin: User, model_version: ModelVersion
) -> None:
    error = refused(lab_admin, **changes)

    assert (error.code, error.details["field"]) == (code, field)


@pytest.mark.parametrize("code", ["26511-6", "26478-8", "26485-3", "26450-7", "30180-4", "19048-8", "718-7"])
def test_real_loinc_codes_have_a_right_check_digit(code: str) -> None:
    assert is_loinc(code)
    wrong = f"{code[:-1]}{(int(code[-1]) + 1) % 10}"
    assert not is_loinc(wrong)


@pytest.mark.parametrize("code", ["", "-6", "26511", "26511-", "26511-66", "２６５１１-6", "12345678-1", " 26511-6"])
def test_other_texts_are_no_loinc(code: str) -> None:
    assert not is_loinc(code)


def test_range_that_is_a_single_number_or_open_is_fine(lab_admin: User) -> None:
    save(lab_admin, cell_types=with_rule("monocyte", range_low=5.0, range_high=5.0))
    saved = save(lab_admin, cell_types=with_rule("monocyte", range_low=None, range_high=100.0))

    assert saved.cell_types[2]["range_low"] is None


def test_second_of_two_who_save_at_once_is_told_and_nothing_is_overwritten(lab_admin: User) -> None:
    save(lab_admin, target_count=200, based_on=0)

    with pytest.raises(HematoVisionError) as caught:
        save(lab_admin, target_count=300, based_on=0)

    assert (caught.value.code, caught.value.status) == ("settings_changed", 409)
    assert "Ada Adler" in caught.value.message
    assert LaboratorySettings.objects.count() == 1


def test_two_who_save_in_the_same_moment_make_one_version(lab_admin: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(self: LaboratorySettings, **_: Any) -> None:
        raise IntegrityError

    monkeypatch.setattr(LaboratorySettings, "save", taken)

    with pytest.raises(HematoVisionError) as caught:
        save(lab_admin, target_count=300)

    assert caught.value.code == "settings_changed"
    assert not AuditEvent.objects.filter(action="laboratory_settings_saved").exists()


def test_threshold_that_a_newer_model_has_overtaken_does_not_block_other_changes(
    lab_admin: User, model_version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(lab_admin, abstain_below=0.9)
    monkeypatch.setattr("classifier.services.laboratory.least_confidence", lambda: 0.95)

    assert save(lab_admin, abstain_below=0.9, target_count=50).version == 2


def test_changes_are_told_in_words(lab_admin: User, laboratory: Laboratory) -> None:
    then = settings_of(laboratory.pk)
    cell_types = with_rule("basophil", loinc="706-2", range_low=None)
    cell_types[0], cell_types[1] = cell_types[1], cell_types[0]
    now = save(lab_admin, uploader_may_release=False, abstain_below=0.955, cell_types=cell_types)

    assert [(change.what, change.then, change.now) for change in changes_between(then, now)] == [
        ("Who releases", "an uploader of the case too", "only somebody who uploaded nothing to the case"),
        ("No class below", "the model's own limit", "95.5 %"),
        ("Basophil, lower limit", "0 %", "none"),
        ("Basophil, LOINC", "30180-4", "706-2"),
        ("Order from place 1", "neutrophil, lymphocyte", "lymphocyte, neutrophil"),
    ]


# --- The threshold in the pipeline -----------------------------------------------------------------------------


def classified(make_image: MakeImage, count: int, **fields: Any) -> list[Prediction]:
    contents = [file.read_bytes() for file in real_image_files()[:count]] or [jpeg_of_cell(s) for s in range(count)]
    images = [make_image(content=content, **fields) for content in contents]
    while pipeline.classify_queued():
        pass
    return [image.predictions.get() for image in images]


def test_prediction_below_the_threshold_keeps_its_suggestion_and_loses_its_class(
    lab_admin: User, make_image: MakeImage, model_version: ModelVersion
) -> None:
    """The same pictures, with and without: the threshold adds abstentions and changes nothing else."""
    case = services.open_case(actor=make_image("queued").uploaded_by)
    plain = classified(make_image, 16)
    threshold = sorted(said.confidence for said in plain if said.label)[-1]
    save(lab_admin, abstain_below=threshold)
    strict = classified(make_image, 16, case=case)

    assert any(said.label for said in plain)
    for then, now in zip(plain, strict, strict=True):
        assert now.suggestion == then.suggestion
        assert now.confidence == pytest.approx(then.confidence)
        if then.abstained:
            assert (now.reason_code, now.reason) == (then.reason_code, then.reason)
        elif now.confidence < threshold:
            assert (now.label, now.abstained, now.reason_code) == ("", True, BELOW_LABORATORY_THRESHOLD)
            assert now.reason.startswith("The model is not sure. It could be ")
            assert now.reason.endswith(". Please classify.")
            named = now.get_suggestion_display().lower()
            assert f"It could be {named} or " in now.reason or f"It could be {named}, " in now.reason
        else:
            assert (now.label, now.reason) == (then.label, "")
    assert {said.reason_code for said in strict} >= {BELOW_LABORATORY_THRESHOLD}
    assert any(said.label for said in strict), "what is as sure as the threshold keeps its class"


def test_threshold_of_one_laboratory_is_not_that_of_another(
    lab_admin: User, stranger: User, make_image: MakeImage, model_version: ModelVersion, django_assert_num_queries: Any
) -> None:
    save(lab_admin, abstain_below=0.99)
    other = services.open_case(actor=stranger)
    ours, theirs = make_image(), make_image(case=other, uploaded_by=stranger)

    with django_assert_num_queries(1):
        thresholds = thresholds_of([ours.pk, theirs.pk])

    assert thresholds == {ours.pk: 0.99, theirs.pk: None}


def test_white_cells_of_a_field_are_held_back_too(model_version: ModelVersion) -> None:
    from ml.predictor import CellPrediction, FoundLeukocyte

    def found(label: str | None, confidence: float) -> FoundLeukocyte:
        reason = None if label else "The model is not sure."
        return FoundLeukocyte((0, 0, 9, 9), label, "monocyte", confidence, None if label else "not_sure", reason)

    several = CellPrediction(
        label=None,
        suggestion="monocyte",
        confidence=0.9,
        probabilities={"monocyte": 0.9, "lymphocyte": 0.1},
        conformal_set=("monocyte",),
        abstained=True,
        reason_code="several_leukocytes",
        reason="There are 3 white cells in this picture.",
        ood_score=0.5,
        box=None,
        heat_map=None,
        duration_ms=1.0,
        leukocytes=(found("monocyte", 0.9), found("monocyte", 0.97), found(None, 0.4)),
    )

    held = held_back(several, 0.95)

    assert [(cell.label, cell.reason_code) for cell in held.leukocytes] == [
        (None, BELOW_LABORATORY_THRESHOLD),
        ("monocyte", None),
        (None, "not_sure"),
    ]
    assert held.leukocytes[0].reason == "The model is not sure. It could be monocyte. Please classify."
    assert (held.reason_code, held.reason) == (several.reason_code, several.reason)
    assert held_back(several, None) is several


def test_page_counts_on_own_cells_what_a_threshold_would_leave_to_people(
    lab_admin: User, make_image: MakeImage, model_version: ModelVersion
) -> None:
    now = timezone.now()
    for confidence in (0.86, 0.91, 0.96, 0.995):
        prediction_of(make_image("classified", classified_at=now), model_version, confidence=confidence)
    doubt = {"label": "", "abstained": True, "reason": "Not sure."}
    held = make_image("classified", classified_at=now)
    prediction_of(held, model_version, confidence=0.88, reason_code=BELOW_LABORATORY_THRESHOLD, **doubt)
    unsure = make_image("classified", classified_at=now)
    prediction_of(unsure, model_version, confidence=0.4, reason_code="not_sure", **doubt)

    effect = effect_of_thresholds(lab_admin.laboratory_id, 0.9)  # type: ignore[arg-type]

    assert effect is not None
    assert (effect.source, effect.n) == ("", 5)
    assert [(row.threshold, row.more, row.counts_now) for row in effect.rows] == [
        (0.85, 0, False),
        (0.9, 2, True),
        (0.95, 3, False),
        (0.97, 4, False),
        (0.99, 4, False),
    ]


def test_page_quotes_the_card_where_there_are_no_own_cells(laboratory: Laboratory, model_version: ModelVersion) -> None:
    effect = effect_of_thresholds(laboratory.pk, None)

    assert effect is not None
    assert effect.source == "pbc_test"
    shares = [row.more for row in effect.rows]
    assert shares == sorted(shares)
    assert 0 < shares[-1] < effect.n <= model_version.metrics["pbc_test"]["n"]


# --- The page --------------------------------------------------------------------------------------------------

PAGE = "/laboratory/"


def posted(**changes: Any) -> dict[str, Any]:
    """The form as a browser sends it with the start values."""
    rules = start_cell_types()
    form: dict[str, Any] = {
        "based_on": "0",
        "target_count": "100",
        "uploader_may_release": "on",
        "abstain_below": "",
        "time_zone": "UTC",
        "slug": [rule["slug"] for rule in rules],
    }
    for rule in rules:
        low, high = rule["range_low"], rule["range_high"]
        form[f"low-{rule['slug']}"] = "" if low is None else str(low)
        form[f"high-{rule['slug']}"] = "" if high is None else str(high)
        form[f"loinc-{rule['slug']}"] = rule["loinc"]
    form.update(changes)
    return {name: value for name, value in form.items() if value is not None}


def text_of(response: Any) -> str:
    return " ".join(response.content.decode().split())


@pytest.mark.parametrize("who", ["technologist", "reader", "auditor"])
def test_everybody_of_the_laboratory_reads_and_only_the_administrator_writes(
    who: str, lab_admin: User, sign_in: SignIn, request: pytest.FixtureRequest
) -> None:
    save(lab_admin, target_count=150, time_zone="Europe/Berlin")
    client = sign_in(request.getfixturevalue(who))

    page = text_of(client.get(PAGE))

    assert "150 leukocytes" in page
    assert "Europe/Berlin" in page
    assert "50-70 %" in page
    assert '<form method="post" action="/laboratory/"' not in page
    assert client.post(PAGE, posted(target_count="1")).status_code == 403
    assert settings_of(lab_admin.laboratory_id).target_count == 150  # type: ignore[arg-type]


def test_operator_has_no_laboratory_settings(operator: User, sign_in: SignIn) -> None:
    assert sign_in(operator).get(PAGE).status_code == 404
    assert sign_in(operator).post(PAGE, posted()).status_code == 404


def test_stranger_reads_the_own_settings_only(stranger: User, lab_admin: User, sign_in: SignIn) -> None:
    save(lab_admin, target_count=4321)

    page = text_of(sign_in(stranger).get(PAGE))

    assert "4321" not in page
    assert "4,321" not in page
    assert "Settings of Southside" in page


def test_administrator_saves_by_a_plain_form(lab_admin: User, sign_in: SignIn) -> None:
    client = sign_in(lab_admin)
    form = posted(
        target_count="200",
        uploader_may_release=None,
        abstain_below="95,5",
        time_zone="Europe/Berlin",
        **{"high-lymphocyte": "45,5", "loinc-platelet": "777-3"},
    )

    response = client.post(PAGE, form, follow=True)

    saved = LaboratorySettings.objects.get()
    assert (saved.target_count, saved.uploader_may_release, saved.abstain_below) == (200, False, 0.955)
    assert saved.cell_types[1] == {"slug": "lymphocyte", "range_low": 20.0, "range_high": 45.5, "loinc": "26478-8"}
    assert saved.cell_types[7]["loinc"] == "777-3"
    page = text_of(response)
    assert "version 1 and count from now on" in page
    assert "<del>100</del>" in page
    assert "<ins>200</ins>" in page
    assert "Ada Adler" in page


def test_form_that_is_sent_as_it_came_changes_nothing(lab_admin: User, sign_in: SignIn) -> None:
    first = save(lab_admin, abstain_below=0.9137, cell_types=with_rule("monocyte", range_low=0.1 + 0.2))
    typed = TypedSettings.of(first)

    assert typed.values() == {
        "based_on": 1,
        "target_count": 100,
        "uploader_may_release": True,
        "abstain_below": 0.9137,
        "time_zone": "UTC",
        "cell_types": with_rule("monocyte", range_low=0.3),
    }


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"target_count": "many"}, "The target count is a whole number"),
        ({"target_count": "²"}, "The target count is a whole number"),
        ({"target_count": "0"}, "from 1 to 10,000"),
        ({"abstain_below": "high"}, "The confidence threshold is a number"),
        ({"abstain_below": "40"}, "The model itself gives no class below"),
        ({"time_zone": "Berlin"}, "There is no time zone of that name"),
        ({"low-monocyte": "9"}, "Monocyte: the lower limit of the reference range is above the upper one"),
        ({"low-monocyte": "two"}, "Monocyte: a limit is a number"),
        ({"high-monocyte": "nan"}, "Monocyte: a reference range lies between 0 and 100 %"),
        ({"loinc-monocyte": "26485-9"}, "Monocyte: this is no LOINC code"),
    ],
)
def test_what_can_not_be_used_is_said_and_what_was_typed_is_kept(
    changes: dict[str, str], sentence: str, lab_admin: User, model_version: ModelVersion, sign_in: SignIn
) -> None:
    response = sign_in(lab_admin).post(PAGE, posted(**{"high-basophil": "1.75"} | changes))

    page = text_of(response)
    assert response.status_code == 400
    assert page.count(sentence) == 2, "on top, and beside the field"
    assert 'aria-invalid="true"' in page
    anchor = page.split('">Go there</a>')[0].rpartition('<a href="#')[2]
    assert f'id="{anchor}"' in page, "the sentence on top leads to the field"
    assert 'value="1.75"' in page
    for value in changes.values():
        assert f'value="{value}"' in page or value == "Berlin"
    assert not LaboratorySettings.objects.exists()


def test_second_of_two_sees_what_the_other_changed_and_keeps_what_was_typed(lab_admin: User, sign_in: SignIn) -> None:
    client = sign_in(lab_admin)
    save(lab_admin, target_count=200)

    response = client.post(PAGE, posted(abstain_below="97"))

    page = text_of(response)
    assert response.status_code == 409
    assert "saved version 1 meanwhile" in page
    assert "Target count: <del>100</del>" in page
    assert 'value="97"' in page
    assert 'name="based_on" value="1"' in page
    assert client.post(PAGE, posted(abstain_below="97", based_on="1")).status_code == 302
    assert settings_of(lab_admin.laboratory_id).abstain_below == 0.97  # type: ignore[arg-type]


def order_in(response: Any) -> list[str]:
    page = response.content.decode()
    return [part.split('"')[0] for part in page.split('name="slug" value="')[1:]]


def test_rows_move_without_a_script_and_nothing_is_saved(lab_admin: User, sign_in: SignIn) -> None:
    client = sign_in(lab_admin)

    response = client.post(PAGE, posted(move="up:lymphocyte", target_count="77"))

    assert response.status_code == 200
    assert order_in(response)[:3] == ["lymphocyte", "neutrophil", "monocyte"]
    assert "Nothing is saved yet" in text_of(response)
    assert 'value="77"' in text_of(response)
    assert not LaboratorySettings.objects.exists()
    moved = client.post(PAGE, posted(slug=order_in(response)))
    assert moved.status_code == 302
    assert LaboratorySettings.objects.get().cell_types[0]["slug"] == "lymphocyte"


@pytest.mark.parametrize("move", ["up:neutrophil", "down:metamyelocyte", "up:blast", "sideways:monocyte", "up", ":"])
def test_row_that_can_not_move_stays(move: str, lab_admin: User, sign_in: SignIn) -> None:
    response = sign_in(lab_admin).post(PAGE, posted(move=move))

    assert response.status_code == 200
    assert order_in(response) == [rule["slug"] for rule in start_cell_types()]


def test_first_button_of_the_form_saves(lab_admin: User, sign_in: SignIn) -> None:
    """Enter in a field presses the first button of its form."""
    page = sign_in(lab_admin).get(PAGE).content.decode()
    form = page[page.index("data-laboratory") :]

    assert "move" not in form[form.index("<button") : form.index("</button>")]


def test_rows_that_nobody_named_stand_at_the_end(lab_admin: User, sign_in: SignIn) -> None:
    response = sign_in(lab_admin).post(PAGE, posted(slug=["monocyte", "blast", "monocyte"], move="up:monocyte"))

    assert order_in(response)[0] == "monocyte"
    assert sorted(order_in(response)) == sorted(rule["slug"] for rule in start_cell_types())


def test_history_has_pages_and_each_version_says_what_it_changed(lab_admin: User, sign_in: SignIn) -> None:
    for count in range(1, 25):
        save(lab_admin, target_count=count)
    client = sign_in(lab_admin)

    newest, older = text_of(client.get(PAGE)), text_of(client.get(f"{PAGE}?before=5"))

    assert "<del>23</del>" in newest
    assert "<ins>24</ins>" in newest
    assert "Older versions" in newest
    assert "<strong>Version 4</strong>" not in newest
    assert "?before=5" in newest
    assert "<del>100</del>" in older, "the first version is compared with the start values"
    assert client.get(f"{PAGE}?before=x").status_code == 200
    assert client.get(f"{PAGE}?before={'9' * 30}").status_code == 200


@pytest.mark.parametrize("who", ["technologist", "lab_admin"])
def test_page_is_read_in_a_fixed_number_of_queries(
    who: str,
    lab_admin: User,
    make_image: MakeImage,
    model_version: ModelVersion,
    sign_in: SignIn,
    django_assert_max_num_queries: Any,
    request: pytest.FixtureRequest,
) -> None:
    for count in (1, 2, 3):
        save(lab_admin, target_count=count)
        prediction_of(make_image("classified", classified_at=timezone.now()), model_version)
    client = sign_in(request.getfixturevalue(who))

    # The first look of an hour also keeps the total of what is older.
    client.get(PAGE)
    with django_assert_max_num_queries(12):
        client.get(PAGE)


def test_page_says_how_much_the_originals_take(technologist: User, make_image: MakeImage, sign_in: SignIn) -> None:
    make_image(stored_bytes=1_000_000)
    make_image(stored_bytes=450_000)

    assert "originals of 2 images take" in text_of(sign_in(technologist).get(PAGE))


def test_page_works_without_a_model(technologist: User, sign_in: SignIn) -> None:
    assert "a laboratory can only be stricter" in text_of(sign_in(technologist).get(reverse("laboratory")))
