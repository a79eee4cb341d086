from pathlib import Path

import numpy as np
import pytest

from ml.augment import training_view
from ml.dataset import Scene, load_scene

from .smears import draw_cell, draw_field, encoded


@pytest.mark.parametrize("mild_share", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["cell", "field", "blank"])
def test_views_are_pictures_and_differ(tmp_path: Path, mild_share: float, kind: str) -> None:
    drawn = {
        "cell": draw_cell(),
        "field": draw_field(320, 240, [(20, 20, 60)]),
        "blank": np.full((100, 100, 3), 255, np.uint8),
    }
    (tmp_path / "picture.png").write_bytes(encoded(drawn[kind]))
    scene = load_scene(tmp_path / "picture.png")
    views = [training_view(scene, 150, np.random.default_rng(seed), mild_share) for seed in range(60)]
    assert all(view.shape == (150, 150, 3) and view.dtype == np.uint8 for view in views)
    if kind != "blank":
        assert len({view.tobytes() for view in views}) == len(views)


def test_a_seed_gives_the_same_view() -> None:
    scene = Scene(draw_cell(), 224.0)
    first, second = (training_view(scene, 150, np.random.default_rng([7, 3])) for _ in range(2))
    assert np.array_equal(first, second)


def test_the_cell_stays_in_view() -> None:
    scene = Scene(draw_cell(), 224.0)
    for seed in range(40):
        view = training_view(scene, 150, np.random.default_rng(seed), mild_share=1.0).astype(int)
        assert view[..., 1].min() < 130
