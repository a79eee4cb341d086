"""How well leukocytes are found in whole fields: precision, recall and F1 of boxes (Everingham et al. 2010, IJCV)."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ml.errors import UnreadableImage, UnusableData
from ml.evaluate import classify
from ml.intervals import wilson
from ml.locate import Box
from ml.predictor import CellPrediction, Predictor
from ml.progress import Progress

LEAST_OVERLAP = 0.5
_LEUKOCYTE = "WBC"
_RED_CELL = "RBC"


@dataclass(frozen=True)
class BoxScore:
    """How many boxes are there, how many were found, and how many of both are the same."""

    true: int = 0
    found: int = 0
    matched: int = 0

    def __add__(self, other: "BoxScore") -> "BoxScore":
        return BoxScore(self.true + other.true, self.found + other.found, self.matched + other.matched)

    @property
    def precision(self) -> float:
        """The share of the found boxes that are right; 1 where none was found."""
        return self.matched / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        """The share of the true boxes that were found; 1 where there is none."""
        return self.matched / self.true if self.true else 1.0

    @property
    def f1(self) -> float:
        """The harmonic mean of both; 1 where there is nothing and nothing was found."""
        return 2 * self.matched / (self.true + self.found) if self.true + self.found else 1.0


def overlap(first: Box, second: Box) -> float:
    """Return intersection over union, 0..1, of two boxes (left, top, right, bottom)."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    return shared / max(_area(first) + _area(second) - shared, 1e-9)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def score_boxes(true: Sequence[Box], found: Sequence[Box], least: float = LEAST_OVERLAP) -> BoxScore:
    """Match the boxes of one field one to one, best overlap first, where it is at least `least`."""
    pairs = sorted(((overlap(t, f), i, j) for i, t in enumerate(true) for j, f in enumerate(found)), reverse=True)
    used_true: set[int] = set()
    used_found: set[int] = set()
    for share, i, j in pairs:
        if share >= least and i not in used_true and j not in used_found:
            used_true.add(i)
            used_found.add(j)
    return BoxScore(len(true), len(found), len(used_true))


def read_boxes(annotation: Path) -> dict[str, list[Box]]:
    """Return the boxes of a Pascal VOC file by the name of what is in them. Raises UnusableData."""
    try:
        # The files are those of a data set that was chosen by hand.
        objects = ElementTree.parse(annotation).getroot().iter("object")  # noqa: S314
        boxes: dict[str, list[Box]] = {}
        for each in objects:
            left, top, right, bottom = (
                round(float(each.findtext(f"bndbox/{corner}", ""))) for corner in ("xmin", "ymin", "xmax", "ymax")
            )
            boxes.setdefault(each.findtext("name", ""), []).append((left, top, right, bottom))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise UnusableData(f"The annotation {annotation.name!r} can't be read.") from error
    return boxes


def read_field_labels(table: Path) -> dict[str, list[str]]:
    """Return the cell types of each field of BCCD's `labels.csv`, `BloodImage_00010` -> `["neutrophil",
    "eosinophil"]`; a field without any is left out. Raises UnusableData.
    """
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = [(int(row["Image"]), row["Category"] or "") for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError) as error:
        raise UnusableData(f"The table {table.name!r} can't be read.") from error
    named = {
        f"BloodImage_{number:05d}": [part.strip().lower() for part in text.split(",") if part.strip()]
        for number, text in rows
    }
    return {field: types for field, types in named.items() if types}


def field_report(predictor: Predictor, pictures: Path, annotations: Path, labels: Path) -> dict[str, Any]:
    """Return the figures of a model on whole fields, JSON-ready: JPEGs, Pascal VOC files of the same names, and a table
    as BCCD has it.

    `boxes` has precision, recall and F1 at an overlap of 0.5 over the fields whose annotations box leukocytes, None
    where none does. `in_red_cells`: of `n` found leukocytes, how many have their centre in the box of a red cell, where
    only these are annotated. `counts`: in how many fields (with Wilson's interval) as many were found as the table has
    types, and the table of both numbers. `types`: how many of the table's cell types are among the suggestions for that
    field. Raises UnusableData.
    """
    files = sorted(pictures.glob("*.jpg"))
    if not files:
        raise UnusableData(f"The folder {pictures.name!r} has no JPEG fields in it.")
    types = read_field_labels(labels)
    answers = Progress("fields", len(files)).each(classify(predictor, files))
    seen = {path.stem: answer for path, answer in answers if not isinstance(answer, UnreadableImage)}
    annotated = {name: annotations / f"{name}.xml" for name in seen}
    boxes = {name: read_boxes(path) for name, path in annotated.items() if path.is_file()}
    return {
        "n": len(seen),
        "unreadable": len(files) - len(seen),
        "leukocytes": sum(len(prediction.leukocytes) for prediction in seen.values()),
        "boxes": _box_figures(seen, boxes),
        "in_red_cells": _red_cell_figures(seen, boxes),
        "counts": _count_figures(seen, types),
        "types": _type_figures(seen, types),
    }


def _box_figures(
    seen: Mapping[str, CellPrediction], boxes: Mapping[str, Mapping[str, Sequence[Box]]]
) -> dict[str, Any] | None:
    fields = [name for name, own in boxes.items() if _LEUKOCYTE in own]
    if not fields:
        return None
    scores = (score_boxes(boxes[name][_LEUKOCYTE], [cell.box for cell in seen[name].leukocytes]) for name in fields)
    score = sum(scores, BoxScore())
    return {
        "fields": len(fields),
        "overlap": LEAST_OVERLAP,
        "true": score.true,
        "found": score.found,
        "precision": score.precision,
        "recall": score.recall,
        "f1": score.f1,
    }


def _red_cell_figures(
    seen: Mapping[str, CellPrediction], boxes: Mapping[str, Mapping[str, Sequence[Box]]]
) -> dict[str, Any]:
    inside = [
        any(_holds(red, cell.box) for red in own.get(_RED_CELL, ()))
        for name, own in boxes.items()
        if _LEUKOCYTE not in own
        for cell in seen[name].leukocytes
    ]
    return {"n": len(inside), "inside": sum(inside)}


def _holds(outer: Box, box: Box) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return outer[0] <= x <= outer[2] and outer[1] <= y <= outer[3]


def _count_figures(seen: Mapping[str, CellPrediction], types: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    pairs = Counter((len(types[name]), len(seen[name].leukocytes)) for name in seen if name in types)
    n, right = sum(pairs.values()), sum(count for (true, found), count in pairs.items() if true == found)
    low, high = wilson(right, n)
    table = [{"true": true, "found": found, "fields": count} for (true, found), count in sorted(pairs.items())]
    return {"n": n, "right": right, "low": low, "high": high, "table": table}


def _type_figures(seen: Mapping[str, CellPrediction], types: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    n = right = 0
    for name in seen.keys() & types.keys():
        said = Counter(cell.suggestion for cell in seen[name].leukocytes if cell.suggestion)
        n += len(types[name])
        right += (said & Counter(types[name])).total()
    low, high = wilson(right, n)
    return {"n": n, "right": right, "low": low, "high": high}
