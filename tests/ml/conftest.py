"""What the tests of the model share: the data folder where it is there, and the shipped bundle, loaded once."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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


@pytest.fixture(scope="session")
def step_by_step() -> Callable[[], AbstractContextManager[None]]:
    """TensorFlow without its graphs: to trace one takes as long as dozens of the few steps that these tests train."""

    @contextmanager
    def eagerly() -> Iterator[None]:
        tensorflow = pytest.importorskip("tensorflow", reason="not run: TensorFlow is not installed")
        tensorflow.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tensorflow.config.run_functions_eagerly(False)

    return eagerly
