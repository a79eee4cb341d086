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


def red_cell_boxes(annotation: Path) -> list[tuple[int, int, int, int]]:
    corners = ("xmin", "ymin", "xmax", "ymax")
    root = ElementTree.parse(annotation).getroot()
    boxes = [[int(float(item.findtext(f"bndbox/{corner}", "0"))) for corner in corners] for item in root.iter("object")]
    names = [item.findtext("name") for item in root.iter("object")]
    return [tuple(box) for box, name in zip(boxes, names, strict=True) if name == "RBC"]


def test_in_real_fields_it_lies_in_no_red_cell_and_holds_the_most_violet_pixels(data: Path) -> None:
    annotations = sorted((data / "bccd" / "Annotations").glob("*.xml"))[::4]
    wrong = []
    for annotation in annotations:
        field = decode((data / "bccd" / "JPEGImages" / f"{annotation.stem}.jpg").read_bytes())
        found = find_leukocytes(field)
        x, y = found[0].centre if found else (-1, -1)
        if not found or any(a <= x <= c and b <= y <= d for a, b, c, d in red_cell_boxes(annotation)):
            wrong.append(annotation.stem)
    assert len(annotations) > 80
    assert len(wrong) <= len(annotations) * 0.01


def test_in_real_fields_the_annotated_leukocytes_are_hit(data: Path) -> None:
    hits = fields = 0
    for annotation in sorted((data / "bccd" / "Annotations").glob("*.xml"))[::4]:
        root = ElementTree.parse(annotation).getroot()
        boxes = [
            [float(item.findtext(f"bndbox/{corner}", "0")) for corner in ("xmin", "ymin", "xmax", "ymax")]
            for item in root.iter("object")
            if item.findtext("name") == "WBC"
        ]
        if not boxes:
            continue
        found = find_leukocytes(decode((data / "bccd" / "JPEGImages" / f"{annotation.stem}.jpg").read_bytes()))
        fields += 1
        x, y = found[0].centre if found else (-1.0, -1.0)
        hits += any(a <= x <= c and b <= y <= d for a, b, c, d in boxes)
    if not fields:
        pytest.skip("not run: the annotations on this machine have no leukocyte boxes")
    assert hits >= 0.98 * fields
