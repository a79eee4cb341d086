import json
import shutil
from pathlib import Path

import pytest

from ml import model_card
from ml.errors import ModelUnavailable
from ml.labels import CELL_TYPES
from ml.model_card import ARTIFACTS, CARD_FILE, MODEL_FILE, read_card, shipped_bundle, verify_bundle
from ml.predictor import load_predictor


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def change_card(bundle: Path, **changes: object) -> None:
    card = json.loads((bundle / CARD_FILE).read_text())
    (bundle / CARD_FILE).write_text(json.dumps({**card, **changes}))


def refusal_of(bundle: Path) -> ModelUnavailable:
    with pytest.raises(ModelUnavailable) as refusal:
        verify_bundle(bundle)
    with pytest.raises(ModelUnavailable) as loading:
        load_predictor(bundle)
    assert loading.value.code == refusal.value.code
    assert str(bundle) not in refusal.value.message
    return refusal.value


def test_the_shipped_bundle_is_whole_and_small() -> None:
    bundle = shipped_bundle()
    card = verify_bundle(bundle)
    assert bundle.name == f"{card.name}-{card.version}"
    assert sum(file.stat().st_size for file in bundle.iterdir()) <= 15_000_000
    # What was released, and no other attempt: installations go on with an older version until they are told to change.
    released = {f"hematovision-mobilenetv2-{version}" for version in ("1.0.0", "1.1.0", "1.2.0", "1.3.0")}
    assert {folder.name for folder in bundle.parent.iterdir() if folder.is_dir()} == released


@pytest.mark.parametrize(
    "bundle", sorted(path.parent for path in ARTIFACTS.glob("*/model_card.json")), ids=lambda p: p.name
)
def test_every_version_that_an_installation_may_use_is_whole(bundle: Path) -> None:
    card = verify_bundle(bundle)
    assert bundle.name == f"{card.name}-{card.version}"
    assert load_predictor(bundle).card == card


def test_the_shipped_card_says_what_it_must(bundle: Path) -> None:
    card = read_card(bundle)
    assert set(card.labels) <= set(CELL_TYPES)
    assert len(card.labels) == 8
    assert set(card.conformal_thresholds) == set(card.labels)
    assert 0.2 < card.temperature < 5
    assert card.ood.far >= 1
    assert card.limits
    assert card.training["manifest_sha256"]
    for figures in card.metrics.values():
        assert figures["accuracy_low"] <= figures["accuracy"] <= figures["accuracy_high"]
        assert figures["n"] > 0
    assert {"pbc_test", "raabin_held_out_slides", "kaggle_test", "jtsc_never_trained_on"} <= set(card.metrics)


def test_a_card_survives_being_written_and_read(bundle: Path, tmp_path: Path) -> None:
    card = read_card(bundle)
    (tmp_path / CARD_FILE).write_text(card.as_json())
    assert read_card(tmp_path) == card


def test_no_bundle_is_missing(tmp_path: Path) -> None:
    assert refusal_of(tmp_path / "nothing").code == "model_missing"


@pytest.mark.parametrize("name", [MODEL_FILE, "head.npz", "gate.npz"])
def test_a_missing_file_is_missing(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert refusal_of(copy).code == "model_missing"


@pytest.mark.parametrize("name", [MODEL_FILE, "head.npz", "gate.npz"])
def test_one_altered_byte_is_noticed(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    assert refusal_of(copy).code == "model_altered"


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 99},
        {"preprocessing_version": "0"},
        {"labels": ["neutrophil", "dragon"]},
        {"labels": []},
        {"temperature": "warm"},
        {"files": {}},
        {"ood": {}},
    ],
)
def test_another_format_is_incompatible(copy: Path, changes: dict[str, object]) -> None:
    change_card(copy, **changes)
    assert refusal_of(copy).code == "model_incompatible"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"name": "x"}'])
def test_a_broken_card_is_incompatible(copy: Path, text: str) -> None:
    (copy / CARD_FILE).write_text(text)
    assert refusal_of(copy).code == "model_incompatible"


@pytest.mark.parametrize("content", [None, "", "no-such-bundle"])
def test_no_shipped_bundle_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None) -> None:
    if content is not None:
        (tmp_path / "SHIPPED").write_text(content)
    monkeypatch.setattr(model_card, "ARTIFACTS", tmp_path)
    with pytest.raises(ModelUnavailable) as refusal:
        shipped_bundle()
    assert refusal.value.code == "model_missing"
