"""Folders TRAIN and TEST in the Kaggle layout, drawn: for tests that must run without any data set."""

from pathlib import Path

from .smears import draw_field, encoded

CLASSES = ("EOSINOPHIL", "LYMPHOCYTE", "MONOCYTE", "NEUTROPHIL")


def draw_kaggle_folders(folder: Path, per_class: int, classes: tuple[str, ...] = CLASSES) -> Path:
    """Write `per_class` fields of each class to TRAIN and to TEST; the classes differ in the size of the leukocyte."""
    for part in ("TRAIN", "TEST"):
        for kind, name in enumerate(classes):
            (folder / part / name).mkdir(parents=True)
            for number in range(per_class):
                field = draw_field(320, 240, [(100 + 9 * number, 120, 40 + 25 * kind)], seed=number + 50 * kind)
                (folder / part / name / f"field{number}.png").write_bytes(encoded(field))
    return folder
