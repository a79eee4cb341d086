import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest

from ml.dataset import load_scene
from ml.examples import serving_view
from ml.images import average_areas, decode
from ml.preprocess import (
    INPUT_SIZE,
    PreparedCell,
    background_colour,
    fill_black_corners,
    network_input,
    pad_to_square,
    prepare_cell,
    shown_part,
)

from .smears import BACKGROUND, draw_cell, draw_field, encoded


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


@pytest.mark.parametrize("side", [120, 150, 224])
def test_training_and_serving_see_a_single_cell_alike(tmp_path: Path, side: int) -> None:
    (tmp_path / "cell.png").write_bytes(encoded(draw_cell(side)))
    served = prepare_cell(decode((tmp_path / "cell.png").read_bytes()))
    trained = serving_view(load_scene(tmp_path / "cell.png"), INPUT_SIZE)
    assert np.array_equal(served.pixels, trained)


@pytest.mark.parametrize("place", [(160, 120), (40, 60), (300, 220)])
def test_training_and_serving_see_a_field_alike(tmp_path: Path, place: tuple[int, int]) -> None:
    (tmp_path / "field.png").write_bytes(encoded(draw_field(320, 240, [(*place, 64)])))
    served = prepare_cell(decode((tmp_path / "field.png").read_bytes()))
    trained = serving_view(load_scene(tmp_path / "field.png"), INPUT_SIZE)
    assert difference(served.pixels, trained) < 3


def test_training_and_serving_see_real_pictures_alike(data: Path) -> None:
    pictures = [*sorted((data / "pbc").glob("*/*"))[::900], *sorted((data / "raabin").glob("*/*"))[::600]]
    for picture in pictures:
        served = prepare_cell(decode(picture.read_bytes()))
        assert np.array_equal(served.pixels, serving_view(load_scene(picture), INPUT_SIZE))
    for picture in sorted((data / "kaggle-blood-cells" / "TRAIN").glob("*/*"))[::300]:
        served = prepare_cell(decode(picture.read_bytes()))
        assert difference(served.pixels, serving_view(load_scene(picture), INPUT_SIZE)) < 4


def test_a_single_centred_cell_is_taken_whole() -> None:
    prepared = prepare_cell(draw_cell())
    assert prepared.box is None
    assert prepared.found == "single_cell"
    assert prepared.pixels.shape == (INPUT_SIZE, INPUT_SIZE, 3)


def test_the_box_of_a_field_holds_its_cell_and_stays_inside() -> None:
    prepared = prepare_cell(draw_field(640, 480, [(600, 60, 120)]))
    assert prepared.found == "one_leukocyte"
    assert prepared.box is not None
    left, top, right, bottom = prepared.box
    assert 0 <= left < 600 < right <= 640
    assert 0 <= top < 60 < bottom <= 480


def test_two_leukocytes_are_said_to_be_several() -> None:
    prepared = prepare_cell(draw_field(640, 480, [(150, 200, 120), (450, 250, 130)]))
    assert prepared.found == "several_leukocytes"
    assert len(prepared.leukocytes) == 2


def test_every_leukocyte_of_a_field_is_cut_at_one_scale() -> None:
    prepared = prepare_cell(draw_field(640, 480, [(150, 200, 120), (450, 250, 130), (300, 380, 90)]))
    assert len(prepared.leukocytes) == 3
    assert [pixels.shape for pixels in prepared.further] == [(INPUT_SIZE, INPUT_SIZE, 3)] * 2
    assert prepared.box is not None
    assert prepared.box[2] - prepared.box[0] < 320
    dark = [(pixels.max(axis=2) < 160).mean() for pixels in (prepared.pixels, *prepared.further)]
    assert min(dark) > 0.05


def test_one_leukocyte_has_nothing_further() -> None:
    assert prepare_cell(draw_field(640, 480, [(150, 200, 120)])).further == ()
    assert prepare_cell(draw_cell()).further == ()


def test_a_field_without_a_leukocyte_says_so() -> None:
    assert prepare_cell(draw_field(640, 480, [])).found == "no_leukocyte"


def test_a_large_square_field_is_searched_too() -> None:
    prepared = prepare_cell(draw_field(1200, 1200, [(300, 800, 120)]))
    assert prepared.found == "one_leukocyte"
    assert prepared.box is not None
    assert prepared.box[0] < 300 < prepared.box[2]


def test_a_single_cell_that_fills_a_wide_picture_keeps_its_scale() -> None:
    prepared = prepare_cell(draw_field(400, 300, [(200, 150, 60)]))
    small = prepare_cell(draw_field(1600, 1200, [(800, 600, 120)]))
    assert prepared.box is not None
    assert small.box is not None
    assert prepared.box[2] - prepared.box[0] == 200
    assert small.box[2] - small.box[0] < 320


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 400), (2000, 40), (33, 39)])
def test_every_allowed_shape_is_prepared(height: int, width: int) -> None:
    prepared = prepare_cell(np.full((height, width, 3), 128, np.uint8))
    assert isinstance(prepared, PreparedCell)
    assert prepared.pixels.shape == (INPUT_SIZE, INPUT_SIZE, 3)


def test_black_corners_become_background() -> None:
    field = draw_field(320, 240, [(160, 120, 60)])
    corner = field.copy()
    corner[:60, :80] = 0
    filled = fill_black_corners(corner)
    assert filled.min() > 20
    assert np.array_equal(filled[100:], field[100:])
    assert fill_black_corners(field) is field


def test_black_corners_of_a_turned_single_cell_become_background_too() -> None:
    turn = cv2.getRotationMatrix2D((75, 75), 30, 1)
    turned = np.asarray(cv2.warpAffine(draw_cell(INPUT_SIZE), turn, (INPUT_SIZE, INPUT_SIZE)), np.uint8)
    assert turned[:15, :15].max() == 0
    prepared = prepare_cell(turned)
    assert prepared.found == "single_cell"
    assert difference(prepared.pixels[:15, :15], np.array(BACKGROUND)) < 15
    middle = slice(50, 100)
    assert np.array_equal(prepared.pixels[middle, middle], turned[middle, middle])


def test_an_all_black_picture_is_survived() -> None:
    assert prepare_cell(np.zeros((240, 320, 3), np.uint8)).found == "no_leukocyte"


def test_padding_is_background() -> None:
    padded = pad_to_square(draw_field(120, 100, []))
    assert padded.shape == (120, 120, 3)
    assert difference(padded[0, 0], np.array(BACKGROUND)) < 6
    assert difference(background_colour(draw_cell()), np.array(BACKGROUND)) < 6


@pytest.mark.parametrize("shape", [(363, 363), (64, 64), (97, 1301), (1, 50), (4, 1), (1, 1)])
def test_background_is_the_median_of_the_brightest_quarter(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(5).integers(0, 256, (*shape, 3), np.uint8)
    small = picture[:: max(1, shape[0] // 64), :: max(1, shape[1] // 64)].reshape(-1, 3)
    brightness = small.sum(axis=1)
    bright = small[brightness >= np.percentile(brightness, 75)]
    assert background_colour(picture).tolist() == np.median(bright, axis=0).astype(np.uint8).tolist()


# Odd and whole factors, one side unchanged or enlarged, and pictures on both sides of the limit for floats.
@pytest.mark.parametrize("shape", [(363, 360), (151, 150), (149, 400), (150, 411), (300, 450), (719, 720), (722, 721)])
@pytest.mark.parametrize("kind", ["noise", "white"])
def test_areas_are_averaged_as_those_of_bytes_are(shape: tuple[int, int], kind: str) -> None:
    picture = np.random.default_rng(3).integers(0, 256, (*shape, 3), np.uint8)
    picture |= np.uint8(255 if kind == "white" else 0)
    # A part of a larger picture, as a cut is.
    for part in (picture, picture[: shape[0] - 1, 2:]):
        of_bytes = cv2.resize(part, (150, 150), interpolation=cv2.INTER_AREA)
        assert np.array_equal(average_areas(part, 150, 150), of_bytes)


def test_the_network_takes_minus_one_to_one() -> None:
    ends = network_input(np.array([[[0, 255, 127]]], np.uint8))
    assert ends.dtype == np.float32
    assert np.allclose(ends, [[[-1, 1, -0.00392]]], atol=1e-4)


@pytest.mark.parametrize("shape", [(32, 60_000), (60_000, 32)])
def test_a_thin_picture_costs_no_more_memory_than_another(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 240, np.uint8)
    picture[10:22, 10:22] = (90, 30, 140)
    tracemalloc.start()
    prepared = prepare_cell(picture)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert prepared.pixels.shape == (INPUT_SIZE, INPUT_SIZE, 3)
    assert peak < 300_000_000


def test_people_are_shown_the_cut_and_of_several_cells_the_field() -> None:
    one, several = draw_field(640, 480, [(150, 200, 120)]), draw_field(640, 480, [(150, 200, 120), (450, 250, 130)])
    cell = prepare_cell(one)
    assert cell.box is not None
    left, top, right, bottom = cell.box

    part = shown_part(one, cell, 192)
    assert max(part.shape) == 192
    assert abs(part.shape[0] / part.shape[1] - (bottom - top) / (right - left)) < 0.02
    assert shown_part(several, prepare_cell(several), 192).shape == (144, 192, 3)
    assert shown_part(one, cell, 1000).shape == (bottom - top, right - left, 3)
