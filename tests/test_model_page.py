"""The pages of the models: the card drawn, old cards and new ones, and what of the data folder may be seen."""

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from PIL import Image

from accounts.models import User
from classifier.charts import axis_for, matrix_rows, reliability_of
from classifier.data_set_pictures import picture_path
from classifier.model_registry import activate_version, register_bundle
from classifier.models import ModelVersion
from classifier.templatetags.model_card import interval_of, share, short_name, up_to, whole_share
from ml.labels import CELL_TYPES
from ml.model_card import CARD_FILE, read_card, shipped_bundle
from ml.published import SEED_RECIPE_FILE, seed_recipe
from tests.pictures import drawn_cell, encoded

SignIn = Callable[[User], Client]
MakeModel = Callable[..., ModelVersion]

MISTAKE = {
    "path": "pbc/monocyte/MO_1.jpg",
    "label": "monocyte",
    "said": "lymphocyte",
    "confidence": 0.987,
    "abstained": False,
}
BIN = {"low": 14 / 15, "high": 1.0, "n": 40, "confidence": 0.98, "accuracy": 0.9}
NEW_FIGURES = {
    "n": 60,
    "accuracy": 0.9,
    "accuracy_low": 0.8,
    "accuracy_high": 0.95,
    "macro_f1": 0.88,
    "ece": 0.05,
    "abstained": 0.1,
    "answered": 54,
    "accuracy_answered": 0.97,
    "accuracy_answered_low": 0.9,
    "accuracy_answered_high": 0.99,
    "ood_refused": 0.02,
    "conformal_coverage": 0.96,
    "confusion": {"monocyte": {"monocyte": 30, "lymphocyte": 10}, "lymphocyte": {"lymphocyte": 20}},
    "per_class": {
        "monocyte": {"n": 40, "sensitivity": 0.75, "ppv": 1.0, "conformal_coverage": 0.91},
        "lymphocyte": {"n": 20, "sensitivity": 1.0, "ppv": 0.667, "conformal_coverage": 0.99},
    },
    "reliability": [BIN, {"low": 0.0, "high": 1 / 15, "n": 0, "confidence": None, "accuracy": None}],
    "clusters_total": 90,
    "clusters": [{"name": "slide 7", "n": 40, "right": 33}],
    "worst_mistakes": [MISTAKE],
}


@pytest.fixture
def bundles(settings: Any, tmp_path: Path) -> Path:
    settings.MODEL_BUNDLES = tmp_path / "bundles"
    settings.MODEL_BUNDLES.mkdir()
    return Path(settings.MODEL_BUNDLES)


@pytest.fixture
def make_model(db: None, bundles: Path) -> MakeModel:
    """A registered version: the shipped model with a card of one's own."""

    def make(number: str = "9.0.0", **changes: Any) -> ModelVersion:
        shipped = read_card(shipped_bundle())
        bundle = bundles / f"{shipped.name}-{number}"
        shutil.copytree(shipped_bundle(), bundle)
        values = json.loads((bundle / CARD_FILE).read_text())
        (bundle / CARD_FILE).write_text(json.dumps({**values, "version": number, **changes}))
        return register_bundle(bundle)

    return make


@pytest.fixture
def data_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A data folder that holds the picture of the mistake."""
    folder = tmp_path / "data"
    (folder / "pbc" / "monocyte").mkdir(parents=True)
    picture = encoded(drawn_cell(3, (400, 300)), "JPEG", comment=b"secret of the camera")
    (folder / str(MISTAKE["path"])).write_bytes(picture)
    monkeypatch.setenv("HEMATOVISION_DATA", str(folder))
    return folder


def written(fraction: float | None) -> str:
    """A share as it stands in `page_of`, where every space is the same."""
    return share(fraction).replace("\u00a0", " ")


def page_of(client: Client, version: ModelVersion) -> str:
    response = client.get(reverse("model", args=[version.pk]))
    assert response.status_code == 200
    return re.sub(r"\s+", " ", response.content.decode().replace("&nbsp;", " "))


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


# --- Who sees it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actor", ["technologist", "reader", "auditor", "lab_admin", "stranger", "operator"])
def test_everybody_who_is_signed_in_sees_the_models(
    actor: str, sign_in: SignIn, model_version: ModelVersion, request: pytest.FixtureRequest
) -> None:
    client = sign_in(request.getfixturevalue(actor))

    listed = client.get(reverse("models")).content.decode()
    assert reverse("model", args=[model_version.pk]) in listed
    assert client.get(reverse("model", args=[model_version.pk])).status_code == 200


@pytest.mark.parametrize("page", ["models", "model", "model-manifest", "model-mistake"])
def test_models_need_a_user(page: str, model_version: ModelVersion) -> None:
    about: list[Any] = [] if page == "models" else [model_version.pk]
    url = reverse(page, args=[*about, "pbc_test", 0] if page == "model-mistake" else about)

    response = Client().get(url)
    assert response.status_code == 302
    assert response["Location"].startswith(reverse("account_login"))


@pytest.mark.parametrize("page", ["model", "model-manifest"])
def test_unknown_model_is_a_404(page: str, sign_in: SignIn, reader: User, model_version: ModelVersion) -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    assert sign_in(reader).get(reverse(page, args=[unknown])).status_code == 404


def test_no_model_says_what_to_do(sign_in: SignIn, reader: User) -> None:
    assert "manage.py register_model" in sign_in(reader).get(reverse("models")).content.decode()


def test_active_version_is_marked_and_comes_first(sign_in: SignIn, reader: User, make_model: MakeModel) -> None:
    old, new = make_model("8.0.0"), make_model("9.0.0")
    client = sign_in(reader)

    def order() -> list[str]:
        page = client.get(reverse("models")).content.decode()
        assert page.count(">Active<") == 1
        assert page.index(">Active<") < page.index(">Not in use<")
        return sorted(("8.0.0", "9.0.0"), key=lambda number: page.index(f" {number}</a>"))

    assert order() == ["8.0.0", "9.0.0"]
    activate_version(actor=None, version=new)
    assert order() == ["9.0.0", "8.0.0"]
    assert ">Not in use<" in page_of(client, old)


# --- What it shows ---------------------------------------------------------------------------------------------


def test_limits_come_before_any_figure(sign_in: SignIn, reader: User, model_version: ModelVersion) -> None:
    page = page_of(sign_in(reader), model_version)

    card = read_card(shipped_bundle())
    first_figure = page.index("How often it is right")
    for sentence in card.limits:
        assert page.index(sentence) < first_figure
    assert page.index("A normal result does not exclude disease.") < first_figure
    assert page.index("Its weakest classes") < first_figure


def test_shipped_card_is_shown_whole(sign_in: SignIn, reader: User, model_version: ModelVersion) -> None:
    page = page_of(sign_in(reader), model_version)

    card = read_card(shipped_bundle())
    assert all(digest in page for digest in card.files.values())
    assert card.training["manifest_sha256"] in page
    for key, figures in card.metrics.items():
        assert f'id="set-{key}"' in page
        assert written(figures["accuracy"]) in page
    assert page.count('class="matrix"') == len(card.metrics)


def test_what_an_old_card_does_not_hold_is_left_out(sign_in: SignIn, reader: User, make_model: MakeModel) -> None:
    lean = {key: NEW_FIGURES[key] for key in ("n", "accuracy", "accuracy_low", "accuracy_high")}
    page = page_of(sign_in(reader), make_model(metrics={"pbc_test": lean}, training={}))

    for words in ("Reliability", "confident mistakes", "The recipe", "By slide", "where it answers", 'class="matrix"'):
        assert words not in page
    assert "90.0" in page


def test_predictive_value_in_blood_is_worked_out_for_a_card_without_it(
    sign_in: SignIn, reader: User, make_model: MakeModel
) -> None:
    text = text_of(page_of(sign_in(reader), make_model(metrics={"pbc_test": NEW_FIGURES})))

    # All lymphocytes and a quarter of the monocytes are called lymphocyte; in blood they are as 30 to 7.
    assert written(0.3 / (0.3 + 0.07 / 4)) in text
    assert "60 : 30 : 7 : 3 : 0.5" in text


def test_new_figures_are_drawn(sign_in: SignIn, reader: User, make_model: MakeModel, data_sets: Path) -> None:
    junk = {"n": 366, "refused": 363, "kinds": {"red_cells": {"n": 100, "refused": 0.5}}}
    training = {"junk": junk, "heat_maps": True, "seconds": 2070}
    version = make_model(metrics={"pbc_test": NEW_FIGURES}, training=training)
    page = page_of(sign_in(reader), version)
    text = text_of(page)

    assert 'aria-label="Reliability diagram of PBC, held-out cells' in page
    assert "54 of 60 pictures" in text
    assert "slide 7 33 of 40" in text
    assert "90 in all, the 1 largest here" in text
    assert "least: monocyte, 91.0" in text
    assert "Is monocyte , called lymphocyte at 98.7 %" in text
    assert written(363 / 366) in text
    assert "Red cells" in text
    assert "given where the evidence can be tied to a place" in text
    assert "34 min" in text


def test_junk_among_the_metrics_is_no_data_set(sign_in: SignIn, reader: User, make_model: MakeModel) -> None:
    page = page_of(sign_in(reader), make_model(metrics={"pbc_test": NEW_FIGURES, "junk": {"n": 4, "refused": 4}}))

    assert 'id="set-junk"' not in page
    assert "Pictures that show no cell to name" in page


def test_published_figures_stand_beside_ours_with_what_differs(
    sign_in: SignIn, reader: User, model_version: ModelVersion
) -> None:
    text = text_of(page_of(sign_in(reader), model_version))

    assert "Gavas and Olpadkar 2021" in text
    assert "The abstract does not say how the pictures were split" in text
    assert "above 90.0" in text


def test_first_recipe_is_shown_once_it_was_measured(
    sign_in: SignIn, reader: User, model_version: ModelVersion, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured = {
        "n": 2487,
        "accuracy": 0.612,
        "accuracy_low": 0.51,
        "accuracy_high": 0.71,
        "originals": {"n": 71, "right": 51},
        "seconds": 438,
        "cached_seconds": 19,
    }
    monkeypatch.setattr("classifier.model_page.seed_recipe", lambda: seed_recipe(tmp_path))
    client = sign_in(reader)
    assert "First recipe" not in page_of(client, model_version)

    (tmp_path / SEED_RECIPE_FILE).write_text(json.dumps(measured))
    text = text_of(page_of(client, model_version))
    assert "First recipe" in text
    assert "51 of 71 photographs right" in text


def test_bundle_that_is_gone_leaves_what_was_registered(
    sign_in: SignIn, reader: User, make_model: MakeModel, bundles: Path
) -> None:
    version = make_model(metrics={"pbc_test": NEW_FIGURES})
    shutil.rmtree(bundles / version.bundle_name)
    client = sign_in(reader)

    page = page_of(client, version)
    assert "The files of this version are not on this server" in page
    assert version.sha256 in page
    assert written(0.9) in page
    assert client.get(reverse("model-manifest", args=[version.pk])).status_code == 404


def test_altered_bundle_is_told(sign_in: SignIn, reader: User, make_model: MakeModel, bundles: Path) -> None:
    version = make_model()
    (bundles / version.bundle_name / "model.tflite").write_bytes(b"another model")
    page = page_of(sign_in(reader), version)

    assert "are not what they were when it was registered" in page
    assert "Checked now" not in page


def test_page_holds_nothing_that_the_policy_forbids(
    sign_in: SignIn, reader: User, make_model: MakeModel, data_sets: Path
) -> None:
    page = page_of(sign_in(reader), make_model(metrics={"pbc_test": NEW_FIGURES}))

    assert not re.search(r"\sstyle=|<style|<script(?![^>]*\bsrc=)|\son\w+=", page)


# --- Files -----------------------------------------------------------------------------------------------------


def test_manifest_is_downloaded_as_it_lies_in_the_bundle(
    sign_in: SignIn, reader: User, model_version: ModelVersion
) -> None:
    response = sign_in(reader).get(reverse("model-manifest", args=[model_version.pk]))

    assert b"".join(response) == (shipped_bundle() / "manifest.csv.gz").read_bytes()
    assert f"{model_version.bundle_name}-manifest.csv.gz" in response["Content-Disposition"]


def test_manifest_is_only_a_file_of_the_card(sign_in: SignIn, reader: User, make_model: MakeModel) -> None:
    version = make_model(training={"manifest": "../../secret.csv"})
    client = sign_in(reader)

    assert "secret.csv" not in page_of(client, version)
    assert client.get(reverse("model-manifest", args=[version.pk])).status_code == 404


def mistake_url(version: ModelVersion, data_set: str = "pbc_test", number: int = 0) -> str:
    return reverse("model-mistake", args=[version.pk, data_set, number])


def test_mistake_is_shown_small_and_without_what_the_file_hides(
    sign_in: SignIn, reader: User, make_model: MakeModel, data_sets: Path
) -> None:
    version = make_model(metrics={"pbc_test": NEW_FIGURES})
    client = sign_in(reader)
    assert mistake_url(version) in page_of(client, version)

    response = client.get(mistake_url(version))
    assert response["Content-Type"] == "image/jpeg"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert "private" in response["Cache-Control"]
    assert Image.open(io.BytesIO(response.content)).size == (192, 144)
    assert b"secret" in (data_sets / "pbc" / "monocyte" / "MO_1.jpg").read_bytes()
    assert b"secret" not in response.content


def test_mistakes_are_words_where_the_data_folder_is_not(
    sign_in: SignIn, reader: User, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEMATOVISION_DATA", str(tmp_path / "nothing"))
    version = make_model(metrics={"pbc_test": NEW_FIGURES})
    client = sign_in(reader)

    page = page_of(client, version)
    assert "pbc/monocyte/MO_1.jpg" in page
    assert mistake_url(version) not in page
    assert client.get(mistake_url(version)).status_code == 404


@pytest.mark.parametrize(("data_set", "number"), [("pbc_test", 1), ("kaggle_test", 0), ("pbc_test", 10**9)])
def test_only_listed_mistakes_can_be_asked_for(
    sign_in: SignIn, reader: User, make_model: MakeModel, data_sets: Path, data_set: str, number: int
) -> None:
    version = make_model(metrics={"pbc_test": NEW_FIGURES})
    assert sign_in(reader).get(mistake_url(version, data_set, number)).status_code == 404


@pytest.mark.parametrize("way", ["above", "absolute", "link", "not a picture", "folder"])
def test_card_never_opens_a_file_outside_of_the_data_folder(
    sign_in: SignIn, reader: User, make_model: MakeModel, data_sets: Path, tmp_path: Path, way: str
) -> None:
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(encoded(drawn_cell(4), "JPEG"))
    (data_sets / "link.jpg").symlink_to(outside)
    (data_sets / "notes.jpg").write_text("no picture")
    path = {
        "above": "pbc/../../outside.jpg",
        "absolute": str(outside),
        "link": "link.jpg",
        "not a picture": "notes.jpg",
        "folder": "pbc",
    }[way]
    version = make_model(metrics={"pbc_test": {**NEW_FIGURES, "worst_mistakes": [{**MISTAKE, "path": path}]}})
    client = sign_in(reader)

    assert client.get(mistake_url(version)).status_code == 404
    assert (mistake_url(version) in page_of(client, version)) == (way == "not a picture")


def test_a_path_that_no_disk_knows_is_no_picture(data_sets: Path) -> None:
    assert picture_path("pbc/\0.jpg") is None
    assert picture_path("pbc/" + "x" * 5000 + ".jpg") is None


# --- The About page --------------------------------------------------------------------------------------------


def about_page() -> str:
    return text_of(Client().get(reverse("about")).content.decode().replace("&nbsp;", " "))


def test_about_follows_the_active_model(make_model: MakeModel) -> None:
    make_model("8.0.0", metrics={"pbc_test": NEW_FIGURES}, training={"heat_maps": False})
    page = about_page()
    assert "among all 8 classes" in page
    assert "90.0 % [80.0 % - 95.0 %]" in page
    assert "none is shown, which is so for every picture with hematovision-mobilenetv2 8.0.0." in page

    activate_version(actor=None, version=make_model("9.0.0", training={"heat_maps": True}))
    page = about_page()
    assert "hematovision-mobilenetv2 9.0.0" in page
    assert "8.0.0" not in page
    assert "none is shown." in page


def test_about_shows_a_card_that_holds_little(make_model: MakeModel) -> None:
    make_model(metrics={"elsewhere": {"n": 3, "accuracy": 0.9}, "junk": {"n": 3, "refused": 3}})
    page = about_page()
    assert "elsewhere 3 90.0 % -" in page
    assert "junk" not in page


def test_about_names_no_model_where_there_is_none(db: None) -> None:
    page = about_page()
    assert "The model in use" not in page
    assert "none is shown." in page


# --- Charts and numbers ----------------------------------------------------------------------------------------


def test_axis_holds_every_figure_and_ends_at_all() -> None:
    axis = axis_for([0.734, 0.99, None])
    assert (axis.place(0.5), axis.place(0.75), axis.place(1.0)) == ("0.00%", "50.00%", "100.00%")
    assert axis_for([0.29, 0.9]).low == 0.2
    assert [words for _, words in axis.ticks] == ["50 %", "60 %", "70 %", "80 %", "90 %", "100 %"]


def test_matrix_shows_counts_and_shares_of_each_row() -> None:
    rows = matrix_rows({"monocyte": {"monocyte": 3, "platelet": 1}}, ["neutrophil", "monocyte", "platelet"])
    assert [row.true for row in rows] == ["monocyte"]
    assert [(cell.n, cell.share, cell.right, cell.shade) for cell in rows[0].cells] == [
        (0, 0.0, False, 0),
        (3, 0.75, True, 8),
        (1, 0.25, False, 3),
    ]


def test_honest_bin_stands_on_the_line() -> None:
    diagram = reliability_of(
        [{"n": 4, "confidence": 0.5, "accuracy": 0.5}, {"n": 0}, {"n": 400, "confidence": 1.0, "accuracy": 0.5}]
    )
    honest, boastful = diagram.points
    assert honest.y == honest.on_line
    assert boastful.y > boastful.on_line
    assert honest.few
    assert not boastful.few
    assert honest.radius < boastful.radius


@pytest.mark.parametrize(
    ("fraction", "words"),
    [(1.0, "100 %"), (0.0, "0 %"), (0.99996, "99.9 %"), (0.0001, "0.1 %"), (0.9345, "93.5 %"), (None, "-")],
)
def test_only_all_is_all_and_only_none_is_none(fraction: float | None, words: str) -> None:
    assert written(fraction) == words


def test_intervals_and_narrow_numbers() -> None:
    assert up_to(0.757, 0.9694).replace("\u00a0", " ") == "75.7 - 96.9 %"
    assert up_to(None, 0.5) == ""
    assert interval_of({"ece_low": 0.1}, "ece") == ""
    assert [whole_share(value) for value in (0.001, 0.999, 1.0, 0.0)] == ["<1", "99", "100", "0"]


def test_short_names_are_distinct_for_every_cell_type() -> None:
    assert len({short_name(slug) for slug in CELL_TYPES}) == len(CELL_TYPES)
