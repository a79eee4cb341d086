from pathlib import Path

import cv2
import numpy as np
import pytest

from ml.boxes import read_boxes
from ml.images import decode
from ml.locate import MOST_LEUKOCYTES, balance_white, find_leukocytes, stain_score

from .smears import CYTOPLASM, NUCLEUS, draw_field


@pytest.mark.parametrize(("width", "height"), [(320, 240), (640, 480), (1280, 960)])
@pytest.mark.parametrize("place", [(0.5, 0.5), (0.2, 0.3), (0.85, 0.8)])
def test_the_leukocyte_of_a_field_is_found(width: int, height: int, place: tuple[float, float]) -> None:
    x, y, diameter = round(width * place[0]), round(height * place[1]), width // 5
    found = find_leukocytes(draw_field(width, height, [(x, y, diameter)]))
    assert len(found) == 1
    assert np.hypot(found[0].centre[0] - x, found[0].centre[1] - y) < diameter / 5
    assert 0.5 * diameter < found[0].diameter < 1.5 * diameter


def test_two_leukocytes_are_two() -> None:
    assert len(find_leukocytes(draw_field(640, 480, [(150, 200, 120), (450, 250, 130)]))) == 2


@pytest.mark.parametrize("seed", range(6))
def test_touching_leukocytes_are_two(seed: int) -> None:
    turn = seed * np.pi / 6
    across, down = round(56 * np.cos(turn)), round(56 * np.sin(turn))
    touching = [(320 - across, 240 - down, 110), (320 + across, 240 + down, 110)]
    centres = sorted(leukocyte.centre for leukocyte in find_leukocytes(draw_field(640, 480, touching, seed)))
    expected = sorted((float(x), float(y)) for x, y, _ in touching)
    assert len(centres) == 2
    assert all(np.hypot(a[0] - b[0], a[1] - b[1]) < 25 for a, b in zip(centres, expected, strict=True))


@pytest.mark.parametrize("lobes", [2, 3, 4])
def test_separate_lobes_of_one_nucleus_are_one(lobes: int) -> None:
    field = draw_field(640, 480, [])
    cv2.circle(field, (320, 240), 75, CYTOPLASM, -1, cv2.LINE_AA)
    for lobe in range(lobes):
        turn = 2 * np.pi * lobe / lobes
        place = (round(320 + 42 * np.cos(turn)), round(240 + 42 * np.sin(turn)))
        cv2.circle(field, place, 24, NUCLEUS, -1, cv2.LINE_AA)
    (found,) = find_leukocytes(field)
    assert np.hypot(found.centre[0] - 320, found.centre[1] - 240) < 20


def test_a_small_dark_lymphocyte_counts_beside_a_large_pale_cell() -> None:
    field = draw_field(640, 480, [(170, 240, 180)])
    cv2.circle(field, (480, 240), 38, (62, 30, 92), -1, cv2.LINE_AA)
    assert len(find_leukocytes(field)) == 2


@pytest.mark.parametrize("seed", range(3))
def test_score_is_what_its_formula_says_to_the_last_bit(seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (150, 149, 3), np.uint8)
    grey = cv2.cvtColor(noise, cv2.COLOR_RGB2GRAY)
    brightest = np.sort(grey, axis=None)[grey.size * 3 // 4]
    white = np.array(cv2.mean(noise, (grey >= brightest).astype(np.uint8))[:3], np.float32)
    factors = (235.0 / np.maximum(white, 80)).astype(np.float32)
    balanced = balance_white(noise)
    for channel, factor in enumerate(factors):
        wanted = np.minimum(noise[..., channel].astype(np.float32) * factor, np.float32(255))
        assert np.array_equal(balanced[channel], wanted)
    red, green, blue = balanced
    violet = np.maximum(np.minimum(red, blue) - green + (blue - red) / 2, 0)
    violet *= 255 / (np.maximum(np.maximum(red, green), blue) + np.float32(64))
    assert np.array_equal(stain_score(red, green, blue), cv2.GaussianBlur(violet, (0, 0), 1.6))


def test_platelets_are_no_leukocytes() -> None:
    field = draw_field(640, 480, [(200, 240, 130)])
    for x, y in ((420, 100), (500, 300), (350, 420)):
        cv2.circle(field, (x, y), 10, NUCLEUS, -1, cv2.LINE_AA)
    assert len(find_leukocytes(field)) == 1


def test_a_crowded_field_gives_the_strongest_twelve() -> None:
    crowd = [(60 + 120 * column, 60 + 120 * row, 70) for column in range(5) for row in range(4)]
    found = find_leukocytes(draw_field(640, 480, crowd))
    assert len(found) == MOST_LEUKOCYTES
    assert [cell.strength for cell in found] == sorted((cell.strength for cell in found), reverse=True)


def test_a_yellow_background_hides_no_leukocyte() -> None:
    field = draw_field(640, 480, [(200, 240, 120), (450, 250, 110)]) * np.array([1, 0.9, 0.6])
    assert len(find_leukocytes(field.astype(np.uint8))) == 2


def test_a_field_of_red_cells_has_none() -> None:
    assert find_leukocytes(draw_field(640, 480, [])) == []


def test_black_corners_are_no_cell() -> None:
    field = draw_field(320, 240, [(200, 120, 60)])
    turn = cv2.getRotationMatrix2D((160, 120), 20, 1)
    turned = cv2.warpAffine(field, turn, (320, 240)).astype(np.uint8)
    expected = turn @ np.array([200, 120, 1])
    found = find_leukocytes(turned)
    assert len(found) == 1
    assert np.hypot(*(np.array(found[0].centre) - expected)) < 15


def holds(box: tuple[float, ...], point: tuple[float, float]) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def test_in_real_fields_the_leukocyte_is_hit_and_never_a_red_cell(data: Path) -> None:
    """Some copies of the annotations have red cells only: then the hit must lie in none of these."""
    annotations = sorted((data / "bccd" / "Annotations").glob("*.xml"))[::3]
    missed = []
    for annotation in annotations:
        boxes = read_boxes(annotation)
        field = decode((data / "bccd" / "JPEGImages" / f"{annotation.stem}.jpg").read_bytes())
        found = find_leukocytes(field)
        centre = found[0].centre if found else (-1.0, -1.0)
        is_hit = any(holds(box, centre) for box in boxes["WBC"]) if "WBC" in boxes else bool(found)
        if not is_hit or any(holds(box, centre) for box in boxes.get("RBC", []) if "WBC" not in boxes):
            missed.append(annotation.stem)
    assert len(annotations) > 100
    assert len(missed) <= 0.01 * len(annotations), missed
