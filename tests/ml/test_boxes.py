from pathlib import Path

import pytest

from ml.boxes import BoxScore, field_report, overlap, read_boxes, read_field_labels, score_boxes
from ml.errors import UnusableData
from ml.locate import Box, find_leukocytes
from ml.predictor import LiteRTPredictor

from .smears import draw_field, encoded

FIELDS = [
    [(150, 200, 120)],
    [(150, 200, 120), (450, 250, 130)],
    [(120, 120, 100), (330, 240, 130), (540, 360, 110)],
    [(200, 240, 120), (315, 250, 120)],
    [],
]


def boxes_of(leukocytes: list[tuple[int, int, int]]) -> list[Box]:
    return [(x - d // 2, y - d // 2, x + d // 2, y + d // 2) for x, y, d in leukocytes]


def annotation_of(boxes: list[Box], name: str) -> str:
    corners = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{corner}>{value}</{corner}>" for corner, value in zip(corners, box, strict=True))
        + "</bndbox></object>"
        for box in boxes
    )
    return f"<annotation>{objects}</annotation>"


def write_fields(folder: Path, name: str) -> None:
    rows = [",Image,Category"]
    for number, leukocytes in enumerate(FIELDS):
        field = f"BloodImage_{number:05d}"
        (folder / f"{field}.jpg").write_bytes(encoded(draw_field(640, 480, leukocytes, number), "JPEG", quality=95))
        (folder / f"{field}.xml").write_text(annotation_of(boxes_of(leukocytes), name))
        rows.append(f',{number},"{", ".join(["NEUTROPHIL"] * len(leukocytes))}"')
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def test_overlap_is_intersection_over_union() -> None:
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == pytest.approx(1)
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (10, 10, 20, 20)) == 0


def test_a_box_is_matched_once() -> None:
    true: list[Box] = [(0, 0, 10, 10)]
    assert score_boxes(true, [(0, 0, 10, 9), (0, 1, 10, 10)]) == BoxScore(true=1, found=2, matched=1)
    assert score_boxes(true, [(20, 0, 30, 10)]) == BoxScore(1, 1, 0)
    assert score_boxes([*true, (0, 0, 10, 8)], [(0, 0, 10, 9)]) == BoxScore(2, 1, 1)


def test_scores_add_up() -> None:
    score = BoxScore(4, 2, 2) + BoxScore(0, 2, 0)
    assert (score.precision, score.recall, score.f1) == (0.5, 0.5, 0.5)
    assert BoxScore().f1 == 1


def test_leukocytes_of_drawn_fields_are_all_found_and_boxed_well() -> None:
    scores = (
        score_boxes(boxes_of(own), [cell.box for cell in find_leukocytes(draw_field(640, 480, own, seed))])
        for seed in range(4)
        for own in FIELDS
    )
    assert sum(scores, BoxScore()).f1 >= 0.95


def test_report_has_f1_where_leukocytes_are_boxed(tmp_path: Path, predictor: LiteRTPredictor) -> None:
    write_fields(tmp_path, "WBC")
    report = field_report(predictor, tmp_path, tmp_path, tmp_path / "labels.csv")
    assert report["n"] == len(FIELDS)
    assert report["boxes"]["true"] == 8
    assert report["boxes"]["f1"] >= 0.9
    assert report["counts"]["n"] == len(FIELDS) - 1
    assert report["counts"]["right"] == sum(row["fields"] for row in report["counts"]["table"] if is_right(row))
    assert report["types"]["n"] == 8
    assert report["in_red_cells"]["n"] == 0


def is_right(row: dict[str, int]) -> bool:
    return row["true"] == row["found"]


def test_report_says_what_it_can_where_only_red_cells_are_boxed(tmp_path: Path, predictor: LiteRTPredictor) -> None:
    write_fields(tmp_path, "RBC")
    report = field_report(predictor, tmp_path, tmp_path, tmp_path / "labels.csv")
    assert report["boxes"] is None
    assert report["in_red_cells"] == {"n": report["leukocytes"], "inside": report["leukocytes"]}


def test_what_can_not_be_read_is_refused_in_a_sentence(tmp_path: Path, predictor: LiteRTPredictor) -> None:
    (tmp_path / "broken.xml").write_text("<annotation><object>")
    (tmp_path / "labels.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UnusableData, match=r"'broken.xml' can't be read\.$"):
        read_boxes(tmp_path / "broken.xml")
    with pytest.raises(UnusableData, match=r"'labels.csv' can't be read\.$"):
        read_field_labels(tmp_path / "labels.csv")
    with pytest.raises(UnusableData, match="no JPEG fields"):
        field_report(predictor, tmp_path, tmp_path, tmp_path / "labels.csv")


def test_real_fields_have_as_many_as_the_table_says(predictor: LiteRTPredictor, data: Path, tmp_path: Path) -> None:
    bccd = data / "bccd"
    for number, picture in enumerate(sorted((bccd / "JPEGImages").glob("*.jpg"))):
        if number % 6 == 0:
            (tmp_path / picture.name).symlink_to(picture)
    report = field_report(predictor, tmp_path, bccd / "Annotations", bccd / "labels.csv")
    assert report["counts"]["right"] >= 0.97 * report["counts"]["n"]
    assert report["in_red_cells"]["inside"] <= 0.01 * report["in_red_cells"]["n"]
