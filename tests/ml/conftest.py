"""What the tests of the model share: the data folder where it is there, and the shipped bundle, loaded once."""

from pathlib import Path

import pytest

from ml.data_folder import data_folder
from ml.model_card import shipped_bundle
from ml.predictor import LiteRTPredictor, load_predictor


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("model")


@pytest.fixture(scope="session")
def data() -> Path:
    folder = data_folder()
    if not (folder / "pbc").is_dir():
        pytest.skip("not run: the data sets are not on this machine (HEMATOVISION_DATA)")
    return folder


@pytest.fixture(scope="session")
def bundle() -> Path:
    return shipped_bundle()


@pytest.fixture(scope="session")
def predictor(bundle: Path) -> LiteRTPredictor:
    return load_predictor(bundle)
