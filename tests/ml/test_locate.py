import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest

from ml.images import decode
from ml.locate import find_leukocytes

from .smears import draw_field


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


def boxes_by_name(annotation: Path) -> dict[str, list[tuple[float, ...]]]:
    boxes: dict[str, list[tuple[float, ...]]] = {}
    for item in ElementTree.parse(annotation).getroot().iter("object"):
        corners = (item.findtext(f"bndbox/{corner}", "0") for corner in ("xmin", "ymin", "xmax", "ymax"))
        boxes.setdefault(item.findtext("name", ""), []).append(tuple(float(corner) for corner in corners))
    return boxes


def holds(box: tuple[float, ...], point: tuple[float, float]) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def test_in_real_fields_the_leukocyte_is_hit_and_never_a_red_cell(data: Path) -> None:
    """Some copies of the annotations have red cells only: then the hit must lie in none of these."""
    annotations = sorted((data / "bccd" / "Annotations").glob("*.xml"))[::3]
    missed = []
    for annotation in annotations:
        boxes = boxes_by_name(annotation)
        field = decode((data / "bccd" / "JPEGImages" / f"{annotation.stem}.jpg").read_bytes())
        found = find_leukocytes(field)
        centre = found[0].centre if found else (-1.0, -1.0)
        is_hit = any(holds(box, centre) for box in boxes["WBC"]) if "WBC" in boxes else bool(found)
        if not is_hit or any(holds(box, centre) for box in boxes.get("RBC", []) if "WBC" not in boxes):
            missed.append(annotation.stem)
    assert len(annotations) > 100
    assert len(missed) <= 0.01 * len(annotations), missed
